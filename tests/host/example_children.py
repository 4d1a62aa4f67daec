"""Children that a test starts with ``spawn``, and what can be seen of a process in /proc."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
from collections.abc import Iterator
from pathlib import Path

from stillup.host.accounts import Account
from stillup.host.process_start import spawn
from stillup.host.processes import Process

DEADLINE = 20.0


@contextlib.contextmanager
def child(
    *argv: str, environment: dict[str, str] | None = None, account: Account | None = None
) -> Iterator[tuple[Process, int, int]]:
    """A child and the reading ends of its stdout and stderr; it is ended and reaped if it still is there."""
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    process = spawn(argv, environment or {}, out_end, err_end, account=account)
    os.close(out_end)
    os.close(err_end)
    try:
        yield process, out, err
    finally:
        if process.reap() is None:
            process.signal(signal.SIGKILL)
            ended(process)
        process.close()
        os.close(out)
        os.close(err)


def ended(process: Process) -> str | None:
    """How it ended, as soon as its pidfd says that it has."""
    poll = select.poll()
    poll.register(process.pidfd, select.POLLIN)
    assert poll.poll(DEADLINE * 1000), "it has not ended"
    return process.reap()


def read_all(fd: int) -> str:
    with open(fd, closefd=False) as file:
        return file.read()


def field(pid: int, name: str) -> str:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    match = re.search(rf"^{name}:\s*(.*)$", text, re.MULTILINE)
    assert match is not None
    return match.group(1)


def mask(pid: int, name: str) -> set[int]:
    bits = int(field(pid, name), 16)
    return {number for number in range(1, 65) if bits >> (number - 1) & 1}


@contextlib.contextmanager
def running() -> Iterator[Process]:
    """A child that has said, by itself, that it runs."""
    with child("/bin/sh", "-c", "echo here; exec /bin/sleep 60") as (process, out, _):
        assert os.read(out, 64) == b"here\n"
        yield process
