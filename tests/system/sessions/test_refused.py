"""WebSockets that do not go on: their clients are told to connect again, and the operator why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.system.gated_service import gone, reload, reloaded
from tests.system.harness import eventually
from tests.system.sessions.conftest import SessionService
from tests.system.sessions.websocket_peer import WebSocketPeer

pytestmark = pytest.mark.xdist_group("sessions")

RESTART = 1012


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SessionService]:
    """One whose next release may be another each time."""
    with SessionService(tmp_path_factory.mktemp("refused")) as service:
        service.tracebacks_expected = True
        yield service


@pytest.mark.parametrize(
    ("path", "release", "code", "reason"),
    [
        ("/echo", {"KNOWS": 0}, RESTART, "unaware"),
        ("/echo", {"VERSION": 2}, RESTART, "app-closed"),
        ("/own-code", {}, 4001, "app-closed"),
        ("/failing", {}, RESTART, "app-failed"),
    ],
)
def test_refused(
    service: SessionService, stack: ExitStack, *, path: str, release: dict[str, int], code: int, reason: str
) -> None:
    """Where the next app cannot go on, or will not: a close frame, a figure, an event, and no wrong byte."""
    service.next_release()
    reloaded(service)  # right after a cut-over the old one may still accept
    before = service.refused(reason)
    peer = stack.enter_context(WebSocketPeer(service.address(), path))
    service.counted("session", 1)
    service.next_release(**release)
    new = reload(service)
    gone(service, new - 1)
    assert peer.close_code() == code
    eventually(lambda: service.refused(reason) == before + 1, f"{reason} is counted")


def test_a_release_that_does_not_hand_over(service: SessionService, stack: ExitStack) -> None:
    """Its WebSockets are no sessions: they are closed with 1012, and a rollback to it closes those that were."""
    service.next_release(KNOWS=0)
    reloaded(service)  # right after a cut-over the old one may still accept
    peer = stack.enter_context(WebSocketPeer(service.address()))
    assert peer.ask("a").count == 0
    service.counted("websocket", 1)
    service.next_release()
    reloaded(service)
    assert peer.close_code() == RESTART
    other = stack.enter_context(WebSocketPeer(service.address()))
    assert other.ask("a").count == 1
    service.cli("rollback")
    assert other.close_code() == RESTART


def test_too_large_a_state(service: SessionService, stack: ExitStack) -> None:
    """More than 1 MiB does not go on: its client is to connect again, and the app's author finds why in the log."""
    service.next_release()
    reloaded(service)
    peer = stack.enter_context(WebSocketPeer(service.address()))
    peer.ask("pad 2000000")
    new = reload(service)
    gone(service, new - 1)
    assert peer.close_code() == RESTART
    service.logged("2000", "bytes of state; at most 1048576 may travel")
