"""What `stillup stop` says while it waits."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from stillup.client import stop_commands
from stillup.client.control_client import Client
from stillup.core.policy import Policy
from stillup.core.states import ServiceState
from stillup.core.values import replace
from stillup.wire.crossing_view import QueueView
from stillup.wire.fleet_views import status
from tests.client.scripted_supervisor import answer, supervisor
from tests.wire.example_fleets import SUPERVISOR, serving


class OneLook(threading.Event):
    """It is not enough before the service was looked at once."""

    waits = 0

    def wait(self, _: float | None = None) -> bool:
        self.waits += 1
        return self.waits > 1


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look is waited for; there is one."""
    monkeypatch.setattr(stop_commands, "EVERY", 30.0)


def said(directory: Path, state: ServiceState, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said at second 13 of a service that has been cordoned since second 10, its delay being 20 s."""
    fleet = replace(serving(), state=state, cordoned=10.0, policy=Policy(stop_delay=20.0))
    seen = status(fleet, replace(SUPERVISOR, stop_delay=20.0), QueueView(waiting=0, capacity=1), 13.0)
    with supervisor(directory, answer(msgspec.json.encode(seen))):
        stop_commands._say(Client(str(directory)), OneLook())
    return capsys.readouterr().out


def test_an_announced_stop_says_when_it_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Until then everything is served, so nobody is waited for."""
    line = "  stopping in 17 s, and serving until then; 'stillup stop --now' hurries\n"
    assert said(tmp_path, ServiceState.STOP_DELAY, capsys) == line


def test_a_stop_that_has_begun_says_who_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """However long its announcement was to last."""
    line = "  waiting for 1.1, 1.2 to shut the app down; 'stillup stop --now' hurries\n"
    assert said(tmp_path, ServiceState.STOPPING, capsys) == line
