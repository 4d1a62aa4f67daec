"""The processes of hooks, from the order to the end of all that they have started."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stillup.core.events import Event, HookEnded, HookStarted
from stillup.core.hook_settings import HookKind
from stillup.core.model import Hook, Release
from stillup.core.states import HookState
from stillup.core.values import replace
from stillup.daemon.state.console import MOST
from stillup.daemon.workers import child_processes
from stillup.daemon.workers.hook_processes import HookProcesses
from stillup.host.process_start import spawn
from tests.asgi.event_loops import until
from tests.daemon.workers.test_boot_output import Written
from tests.daemon.workers.test_child_processes import IGNORES, STARTS, lives

pytestmark = pytest.mark.usefixtures("no_leak")


def hook(*words: str) -> Hook:
    return Hook(1, HookKind.BEFORE, HookState.RUNNING, 2, 2, ("python", *words))


class Dropped(Written):
    """Keeps nothing."""

    def write(self, fd: int, data: bytes, most: int = MOST) -> None: ...


@contextmanager
def processes(
    folder: Path, console: Written | None = None
) -> Iterator[tuple[HookProcesses, list[Event], Release, Written]]:
    """None yet; what is told of them, what they are run in, and their log."""
    told: list[Event] = []
    console = console or Written()
    console.set_form("text")
    release = Release("app:app", sys.executable, str(folder), environment=dict(os.environ))
    hooks = HookProcesses(told.append, console, None, "/run/x/handoff.sock")
    try:
        yield hooks, told, release, console
    finally:
        hooks.close()


async def started(told: list[Event]) -> HookStarted:
    await until(lambda: told)
    (event,) = told
    assert isinstance(event, HookStarted)
    told.clear()
    return event


async def ended(told: list[Event]) -> HookEnded:
    await until(lambda: told)
    (event,) = told
    assert isinstance(event, HookEnded)
    return event


async def test_it_runs_when_it_is_let_run(tmp_path: Path) -> None:
    """Its pid is told before; its output is logged line by line, what is none of ours packed or not, and kept."""
    with processes(tmp_path) as (hooks, told, release, console):
        hooks.run(hook("-c", 'print(\'\\x1e{"message": "ours"}\', flush=True); raise SystemExit(3)'), release)
        event = await started(told)
        assert lives(event.pid)
        assert console.written == b""
        hooks.let_run(1)
        assert (await ended(told)).how == "exited 3"
        assert b' hook  \n  | {"message": "ours"}\n' in console.written, console.written
        hooks.let_run(1)
        hooks.end(1, kill=True)


async def test_one_that_is_ended_before_it_was_let_run(tmp_path: Path) -> None:
    """Its program is never run: so is it when the supervisor dies, whose end of the pipe is closed then, too."""
    with processes(tmp_path) as (hooks, told, release, _):
        hooks.run(hook("-c", "open('ran', 'w')"), release)
        await started(told)
        hooks.end(1, kill=False)
        assert (await ended(told)).how in ("exited 126", "killed by SIGTERM")
    assert os.listdir(tmp_path) == []


async def test_one_that_is_let_go_of_before_its_start(tmp_path: Path) -> None:
    """A supervisor that ends in the turn in which it was to start a hook leaves neither a process nor a descriptor."""
    with processes(tmp_path) as (hooks, told, release, _):
        hooks.run(hook("-c", "open('ran', 'w')"), release)
    assert told == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kill", [False, True])
async def test_its_end_is_told_when_its_group_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: bool
) -> None:
    """What it has started and ignores SIGTERM is killed first."""
    monkeypatch.setattr(child_processes, "GROUP_GRACE", 0.3)
    file = tmp_path / "pid"
    with processes(tmp_path) as (hooks, told, release, _):
        hooks.run(hook("-c", STARTS, IGNORES, str(file), "waits"), release)
        await started(told)
        hooks.let_run(1)
        await until(lambda: file.exists() and file.read_text())
        child = int(file.read_text())
        hooks.end(1, kill=kill)
        assert (await ended(told)).how == f"killed by {'SIGKILL' if kill else 'SIGTERM'}"
        assert not lives(child)


async def test_a_group_that_no_kill_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is looked at ever more seldom, and then not waited for any more: the hook ends, and the log says so."""
    looks = []

    def is_there(*_: object) -> bool:
        looks.append(True)
        return True

    monkeypatch.setattr(child_processes, "GROUP_GRACE", 0.1)
    monkeypatch.setattr(child_processes, "KILL_PATIENCE", 1.0)
    file = tmp_path / "pid"
    with processes(tmp_path) as (hooks, told, release, _):
        hooks.run(hook("-c", STARTS, IGNORES, str(file), "waits"), release)
        await started(told)
        hooks.let_run(1)
        await until(lambda: file.exists() and file.read_text())
        hooks.end(1, kill=False)
        monkeypatch.setattr(child_processes, "has_others", is_there)
        monkeypatch.setattr(child_processes, "signal_group", lambda *_: True)
        await ended(told)
        os.kill(int(file.read_text()), signal.SIGKILL)
    assert len(looks) < 10, "0.02 s, 0.04 s, ... apart, rather than 50"
    assert "does not end, though it was killed 1 s ago" in caplog.text


async def test_ten_megabytes(tmp_path: Path) -> None:
    """The last lines are kept, and no more than that."""
    program = "import sys\nfor n in range(100_000): print(f'{n:06}', 'x' * 92)"
    with processes(tmp_path, Dropped()) as (hooks, told, release, _):
        hooks.run(hook("-c", program), release)
        await started(told)
        hooks.let_run(1)
        event = await ended(told)
    assert event.how == "exited 0"
    assert event.output.endswith(f"099999 {'x' * 92}")
    assert len(event.output) <= 16 * 1024


async def test_an_interpreter_without_stillup(tmp_path: Path) -> None:
    """It is said what is to be installed, as of a worker; and of one that is not there, that."""
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho \"$0: No module named 'stillup.worker.hook_start'\" >&2; exit 1\n")
    fake.chmod(0o755)
    with processes(tmp_path) as (hooks, told, release, _):
        hooks.run(hook("x.py"), replace(release, python=str(fake)))
        await until(lambda: len(told) == 2)
        assert isinstance(told[1], HookEnded)
        assert f"could not be started: {fake} has no stillup.worker.hook_start: install stillup" in told[1].how
        told.clear()
        hooks.run(hook("x.py"), replace(release, python="/nosuch/python"))
        assert (await ended(told)).how == "could not be started: /nosuch/python: No such file or directory"


async def test_one_that_another_supervisor_has_left(tmp_path: Path) -> None:
    """It is ended like any other; of how it ended its parent knows more."""
    file = tmp_path / "pid"
    null = os.open(os.devnull, os.O_RDWR)
    argv = (sys.executable, "-c", STARTS, IGNORES, str(file), "waits")
    process = spawn(argv, dict(os.environ), null, null)
    os.close(null)
    with processes(tmp_path) as (hooks, told, _, __):
        hooks.adopt(1, process)
        await until(lambda: file.exists() and file.read_text())
        hooks.end(1, kill=False)
        assert (await ended(told)).how == f"killed by {signal.SIGTERM.name}"
        assert not lives(int(file.read_text()))
