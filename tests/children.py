"""The processes that tests start: they hear every signal, and none outlives the tests, whichever way those end.

1. What is ignored is inherited, and a background job ignores SIGINT, under nohup SIGHUP too. The process that runs the
   tests handles them instead, by doing nothing; what it starts has the default.
2. Each process that descends from it has a mark in its environment, by which it is found when its parent is gone.
3. A watcher in a session of its own ends what has the mark when the process that runs the tests is no more.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MARK = "STARTED_BY_TESTS"
DEADLINE = 30.0
"""Seconds within which a process has to have ended by itself, where it was not told to earlier."""
SOON = 20.0
"""Seconds that a process gets which is about to end when nobody waits for it any more."""
PR_GET_CHILD_SUBREAPER = 37

_libc = ctypes.CDLL(None)


@contextmanager
def spawned(argv: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A child, by ``subprocess.Popen``'s options. It has to end by itself, unless the body fails: then it is killed.

    Raises:
        AssertionError: it did not end within ``DEADLINE`` seconds of the body; it is killed.
    """
    process = subprocess.Popen(argv, **options)
    try:
        yield process
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {DEADLINE:g} s: {argv}") from None
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(SOON)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def are_sent_orphans() -> bool:
    """Whether this process is a subreaper (prctl(2)): the parent of all below it whose own parent has ended."""
    answer = ctypes.c_int()
    assert _libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0) == 0
    return bool(answer.value)


@contextmanager
def none_outlives_us() -> Iterator[None]:
    """Mark all that is started from now on, have it hear its signals, and end what is left of it."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _do_nothing)
    mark = f"{os.getpid()}-{secrets.token_hex(8)}"
    argv = [sys.executable, "-I", "-S", __file__, mark]
    with spawned(argv, stdin=subprocess.PIPE, start_new_session=True):
        os.environ[MARK] = mark
        yield


def running() -> dict[int, str]:
    """The processes that descend from this one, but for itself, by pid; and their command lines."""
    return {pid: line for pid, _, line in _marked(os.environ[MARK])}


def end(pids: set[int]) -> dict[int, str]:
    """Kill those of these that don't end soon; what they were."""
    deadline = time.monotonic() + SOON
    while left := {pid: line for pid, line in running().items() if pid in pids}:
        if time.monotonic() > deadline:
            for pid, pidfd, _ in _marked(os.environ[MARK]):
                if pid in left:
                    _kill(pidfd)
            return left
        time.sleep(0.05)
    return {}


def _marked(mark: str) -> Iterator[tuple[int, int, str]]:
    """Pid, pidfd (until the next one is asked for) and command line of each process with that mark."""
    wanted = f"{MARK}={mark}".encode()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid() or wanted not in _environment(name):
            continue  # most, of which no descriptor is needed
        # In this order: the descriptor is that of the process whose environment is read, or of one that is gone.
        with contextlib.suppress(OSError), _pidfd(int(name)) as pidfd:
            if wanted in _environment(name).split(b"\0"):
                line = Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield int(name), pidfd, line


def _environment(pid: str) -> bytes:
    """A process's environment; nothing of one that is gone, or is not ours to see."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return file.readall()
    except OSError:
        return b""


@contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def _kill(pidfd: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _do_nothing(*_: object) -> None:
    """Handle a signal as if it were ignored."""


def _watch(mark: str) -> None:
    """Wait for the end of the process that runs the tests, and end what is left of its children."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        left = 0
        for _, pidfd, _ in _marked(mark):
            _kill(pidfd)
            left += 1
        if not left:
            return
        time.sleep(0.05)  # who was killed may have started another a moment before


if __name__ == "__main__":
    _watch(sys.argv[1])
