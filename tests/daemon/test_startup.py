"""Start-up is a value: the first fleet, and the events that come first. What it opens is closed again."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from stillup.core.access import Role
from stillup.core.events import ParkingLost, RefusalNoted, ReloadAsked, StopAsked
from stillup.core.policy import Policy
from stillup.core.rebuild import first_fleet
from stillup.core.step import step
from stillup.core.values import replace
from stillup.daemon import startup
from stillup.daemon.assembly import Assembly, Opened, WorkerSide, assemble, assemble_worker_side, open_service
from stillup.daemon.settings.config import Settings
from stillup.daemon.startup import Beginning
from stillup.daemon.state.console import Console
from stillup.errors import Refused
from stillup.wire.address import parse_bind
from stillup.wire.api_shapes import Status
from stillup.wire.runtime_paths import RECORD
from tests.core.story import NEW, OLD, crashed, serving

pytestmark = pytest.mark.usefixtures("no_leak")


@dataclass
class Start:
    """A start of a service, without a run."""

    settings: Settings
    console: Console

    @contextlib.contextmanager
    def opened(self) -> Iterator[Opened]:
        with contextlib.ExitStack() as stack:
            yield open_service(self.settings, self.console, stack, None)

    async def begin(self, opened: Opened) -> tuple[Beginning, Assembly]:
        """Begin, assemble and close, as a run does that serves nobody."""
        worker_side = assemble_worker_side(opened)
        try:
            beginning = await startup.begin(opened, worker_side)
            service = assemble(opened, worker_side, beginning.fleet)
            service.effects.close()
            service.history.close()
            service.identities.close()
            return beginning, service
        finally:
            _close(worker_side)


def _close(worker_side: WorkerSide) -> None:
    worker_side.record_writer.close()
    worker_side.figures.close()
    worker_side.admission.close()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    for name in ("NOTIFY_SOCKET", "FDSTORE", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    console = Console()
    yield Start(
        Settings(
            app="main:app",
            name="shop",
            runtime_dir=str(tmp_path / "rt"),
            binds=(parse_bind("web=127.0.0.1:0"),),
            backlog=16,
            workers=3,
            policy=Policy(),
            directory=str(tmp_path),
        ),
        console,
    )
    console.close()


async def test_from_nothing_the_first_event_is_a_reload(start: Start) -> None:
    """The fleet is empty but for its listeners, as large as it was configured, and the engine is made with it."""
    with start.opened() as opened:
        beginning, service = await start.begin(opened)
        fleet = replace(first_fleet(opened.policy, 3), listeners=opened.custody.keys)
        assert beginning == Beginning(fleet, (ReloadAsked(opened.release, "start"),))
        assert service.engine.fleet is beginning.fleet


async def test_the_time_of_a_stop_is_shown_as_a_reload_has_set_it(start: Start) -> None:
    """By it the doctor judges the unit, and a client says how long the announcement lasts."""
    with start.opened() as opened:
        beginning, service = await start.begin(opened)
        policy = Policy(stop_timeout=300.0, stop_delay=20.0)
        service.engine._fleet = replace(beginning.fleet, policy=policy)
        response = await service.api._handlers["status"](cast("Any", SimpleNamespace(role=Role.ADMIN)))
        shown = msgspec.json.decode(bytes(response.body), type=Status)
        assert (shown.stop_delay, shown.stop_budget) == (20.0, 325.0)


async def test_where_nobody_is_left_it_is_a_start_like_any_other(start: Start) -> None:
    """What another supervisor has left on record is of no use without its workers."""
    with start.opened() as opened:
        worker_side = assemble_worker_side(opened)
        await worker_side.record_writer.save(serving(2).fleet, asked=False)
        opened.files.pop_all()  # it is killed: its files stay
        opened.runtime.close()
        _close(worker_side)
    assert RECORD in os.listdir(opened.runtime.path)
    with start.opened() as opened:
        assert opened.left_behind
        beginning, _ = await start.begin(opened)
        assert beginning.fleet == replace(first_fleet(opened.policy, 3), listeners=opened.custody.keys)
        assert beginning.events == (ReloadAsked(opened.release, "start"),)
        opened.files.callback(opened.runtime.remove, RECORD)


async def test_parking_that_cannot_be_had_is_the_last_of_the_first_events(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first fleet still expects it; a stop is the end of the custody then, and nothing is kept for later."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")
        monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname().decode().replace("\0", "@"))
        monkeypatch.setenv("FDSTORE", "1")  # three are to be kept
        with start.opened() as opened:
            assert opened.policy.parks
            beginning, service = await start.begin(opened)
            assert (beginning.fleet.policy.parks, beginning.events[-1]) == (True, ParkingLost())
            assert not opened.custody.outlived
            monkeypatch.setenv("FDSTORE", "64")
            service.engine._fleet = step(beginning.fleet, ParkingLost(), 0.0).fleet
            manager.setblocking(False)
            changes, *_ = cast("Any", service.disk.hold).args
            await changes._changed()
            with pytest.raises(BlockingIOError):
                manager.recv(4096)
        assert opened.notifier._notifier is not None
        assert opened.notifier._notifier.socket is not None
        opened.notifier._notifier.socket.close()


def test_what_is_in_the_way_leaves_nothing_open(start: Start) -> None:
    """A second supervisor of the same directory is refused, and the first has lost nothing."""
    with start.opened() as opened:
        with pytest.raises(Refused), start.opened():
            pass
        assert opened.custody.infos[0].name == "web"


def test_a_record_that_is_too_old_leaves_nothing_open(start: Start) -> None:
    """Not the lock either: when the record is removed, the next start has the directory."""
    with start.opened() as opened:
        opened.files.pop_all()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        opened.runtime.replace(RECORD, f'{{"schema": 1, "boot": "{boot}"}}'.encode())
        opened.runtime.close()
    with pytest.raises(Refused, match="start again"), start.opened():
        pass
    Path(opened.runtime.file(RECORD)).unlink()
    with start.opened():
        pass


def test_a_supervisor_that_takes_over_brings_back_no_release_that_was_rolled_back() -> None:
    """The symlink still names it. Where other workers or listeners are wanted, what serves is started anew."""
    story = crashed()
    (refused,) = startup.reload_after_takeover(story.fleet, NEW, "another configuration")
    assert isinstance(refused, RefusalNoted)
    assert (refused.why, refused.code) == ("another configuration", "rolled-back-before")
    (reload,) = startup.reload_after_takeover(story.fleet, NEW, "other listeners")
    assert reload == ReloadAsked(OLD, "other listeners", force=True)
    story.tell(StopAsked("test"))
    (reload,) = startup.reload_after_takeover(story.fleet, NEW, "start")
    assert reload == ReloadAsked(NEW, "start", force=True)
    assert startup.reload_after_takeover(story.fleet, OLD, "start") == (ReloadAsked(OLD, "start"),)
    assert startup.reload_after_takeover(story.fleet, NEW, "") == ()
