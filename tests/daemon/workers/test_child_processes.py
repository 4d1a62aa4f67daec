"""What a worker has started goes with it, whatever ended it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stillup.core.states import Birth
from stillup.daemon.state.console import Console
from stillup.daemon.workers import child_processes
from stillup.daemon.workers.child_processes import ChildProcesses
from stillup.daemon.workers.process_starter import ProcessStarter
from stillup.daemon.workers.program import Program
from tests.asgi.event_loops import until

STARTS = (
    "import signal, subprocess, sys, time\n"
    "signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())\n"
    "child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE)\n"
    "child.stdout.readline()\n"
    "open(sys.argv[2], 'w').write(str(child.pid))\n"
    "if sys.argv[3] == 'ends': sys.exit(3)\n"
    "time.sleep(60)\n"
)
WAITS = "import time; print(flush=True); time.sleep(60)"
IGNORES = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITS}"


def is_there(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a child says that it runs."""
    return tmp_path_factory.mktemp("child") / "pid"


@contextmanager
def ready_for_one() -> Iterator[tuple[ChildProcesses, list[str]]]:
    """The children of a supervisor that is about to start its first; and how each that has ended did."""
    ended: list[str] = []
    console = Console()
    starter = ProcessStarter()
    children = ChildProcesses(console, lambda _, how, __: ended.append(how), starter)
    children.prepare(1)
    try:
        yield children, ended
    finally:
        children.close()
        starter.close()
        console.close()


async def start(children: ChildProcesses, source: str, *words: str) -> int:
    """Start a Python program with words for it; its pid."""
    argv = (sys.executable, "-c", source, *words)
    process, birth = await children.start(1, Program(argv=argv, environment=dict(os.environ)))
    assert birth is Birth.SPAWNED
    return process.pid


async def numbers(file: Path) -> list[int]:
    """What it says there, once it does."""

    def read() -> list[int]:
        return [int(word) for word in file.read_text().split()] if file.exists() else []

    await until(read)
    return read()


@pytest.mark.parametrize("child", [WAITS, IGNORES], ids=["waits", "ignores"])
@pytest.mark.parametrize("how", ["ends", "killed", "terminated"])
async def test_what_it_has_started(file: Path, child: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of a worker's gets SIGTERM when that ends, and SIGKILL if it does not leave; a stop waits for that."""
    monkeypatch.setattr(child_processes, "GROUP_GRACE", 0.3)
    with ready_for_one() as (children, ended):
        await start(children, STARTS, child, str(file), how)
        (started,) = await numbers(file)
        orders: dict[str, Callable[[], None]] = {
            "ends": lambda: None,
            "killed": lambda: children.signal(1, signal.SIGKILL),
            "terminated": lambda: children.signal(1, signal.SIGTERM),
        }
        orders[how]()
        await until(lambda: ended)
        await children.end_groups()
        await until(lambda: not lives(started))
        assert ended == [{"ends": "exited 3", "killed": "killed by SIGKILL", "terminated": "killed by SIGTERM"}[how]]


async def test_who_does_not_leave_is_killed_at_the_end(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the supervisor lets go of everything, nothing is left for later."""
    monkeypatch.setattr(child_processes, "GROUP_GRACE", 60.0)
    with ready_for_one() as (children, ended):
        await start(children, STARTS, IGNORES, str(file), "ends")
        await until(lambda: ended)
    await until(lambda: not lives(int(file.read_text())))
    await asyncio.sleep(0)


TRACES = (
    "import ctypes, os, sys, time\n"
    "os.setsid()\n"
    "threads = sorted(map(int, os.listdir(f'/proc/{os.getppid()}/task')))\n"
    "seized = ctypes.CDLL(None).ptrace(0x4206, threads[WHICH], None, None)\n"  # PTRACE_SEIZE
    "print(seized, flush=True); time.sleep(60)"
)
TRACED = (
    "import ctypes, subprocess, sys, threading, time\n"
    "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    "ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)\n"  # PR_SET_PTRACER, for Yama
    "child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE)\n"
    "seized = child.stdout.readline().decode().strip()\n"
    "open(sys.argv[2], 'w').write(f'{seized} {child.pid}')\n"
    "time.sleep(60)\n"
)


@pytest.mark.parametrize("which", ["0", "-1"], ids=["the process", "a thread"])
async def test_whose_end_another_process_keeps_to_itself(
    file: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """A tracer that does not wait for its tracee keeps it from being reaped; it has ended all the same."""
    monkeypatch.setattr(child_processes, "REAP_THREADS", 0.1)
    traces = TRACES.replace("WHICH", which)
    monkeypatch.setattr(child_processes, "GROUP_GRACE", 0.1)
    monkeypatch.setattr(child_processes, "REAP_AGAIN", 0.1)
    with ready_for_one() as (children, ended):
        pid = await start(children, TRACED, traces, str(file))
        seized, tracer = await numbers(file)
        children.signal(1, signal.SIGKILL)
        await until(lambda: ended)
        if seized == 0:  # else ptrace(2) is not for us here
            assert ended == ["ended; how is not known"]
            await asyncio.sleep(0.3)
            assert is_there(pid)
        os.kill(tracer, signal.SIGKILL)
        await until(lambda: not is_there(pid))


MAKES_US_TRACE = (
    "import ctypes, sys, threading, time\n"
    "def thread():\n"
    "    seized = ctypes.CDLL(None).ptrace(0, 0, None, None)\n"  # PTRACE_TRACEME
    "    open(sys.argv[1], 'w').write(str(seized))\n"
    "    time.sleep(60)\n"
    "threading.Thread(target=thread).start()"
)


async def test_whose_threads_we_trace(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread may make its parent its tracer, who has to reap it before the process ends, be that killed or not."""
    monkeypatch.setattr(child_processes, "REAP_THREADS", 0.1)
    with ready_for_one() as (children, ended):
        await start(children, MAKES_US_TRACE, str(file))
        await numbers(file)
        children.signal(1, signal.SIGKILL)
        await until(lambda: ended)
        assert ended == ["killed by SIGKILL"]
