"""Programs of our own that are run to their end, with a deadline: what one of them reads or loads may be hostile."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from stillup.core.states import HOW_UNKNOWN
from stillup.host import descriptors
from stillup.host.accounts import Account
from stillup.host.process_groups import signal_group
from stillup.host.process_start import spawn
from stillup.host.processes import Process

_CHUNK: Final = 64 * 1024
_READS: Final = 64
"""Chunks that are read of what an ended program has left in a pipe, at most: a child of it may write for ever."""
_DEATH: Final = 5
"""Seconds that one which was killed is waited for: a disk that hangs keeps it (D in ps(1))."""


class Finished(msgspec.Struct, frozen=True):
    """How a program ended, and the last of what it wrote."""

    how: str
    """As ``Process.reap`` has it: ``exited 0``."""
    stdout: bytes
    stderr: bytes


def run(
    argv: Sequence[str],
    environment: Mapping[str, str],
    given: bytes,
    *,
    deadline: float,
    most: int,
    account: Account | None = None,
) -> Finished:
    """Run a program to its end; whatever it has started goes with it, as far as that is of its process group. Blocks.

    Args:
        argv: its command, with a path.
        environment: all of it.
        given: its stdin, a file: neither a command line nor an environment is the place for what is secret.
        deadline: seconds that it may take.
        most: bytes that are kept of each of its outputs.
        account: whose it is; None for our own user's.

    Raises:
        TimeoutError: it took longer, and was killed.
        OSError: it could not be started.
    """
    until = time.monotonic() + deadline
    with contextlib.ExitStack() as stack:
        stdin = os.memfd_create("given")
        stack.callback(os.close, stdin)
        descriptors.write_all(stdin, given)
        os.lseek(stdin, 0, os.SEEK_SET)
        ends: list[int] = []
        outputs: dict[int, bytearray] = {}
        stack.callback(lambda: descriptors.close(ends))
        for _ in range(2):
            read, write = descriptors.pipe()
            stack.callback(os.close, read)
            outputs[read] = bytearray()
            ends.append(write)
        process = spawn(argv, environment, *ends, stdin=stdin, account=account)
        stack.callback(process.close)
        stack.callback(_end, process)
        descriptors.close(ends)
        ends.clear()
        _follow(process, outputs, until, most)
        signal_group(process, signal.SIGKILL)
        for fd, output in outputs.items():
            for _ in range(_READS):
                if not _read(fd, output, most):
                    break
        stdout, stderr = (bytes(output) for output in outputs.values())
        return Finished(process.reap() or HOW_UNKNOWN, stdout, stderr)


def _follow(process: Process, outputs: Mapping[int, bytearray], until: float, most: int) -> None:
    """Read its outputs until it has ended; it is not reaped."""
    with selectors.DefaultSelector() as selector:
        for fd in (process.pidfd, *outputs):
            selector.register(fd, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if key.fd == process.pidfd:
                    return
                if not _read(key.fd, outputs[key.fd], most):
                    selector.unregister(key.fd)
    raise TimeoutError


def _read(fd: int, output: bytearray, most: int) -> bool:
    """Read once; False when there is nothing now, or nothing ever more."""
    try:
        data = os.read(fd, _CHUNK)
    except BlockingIOError:
        return False
    output += data
    del output[: max(len(output) - most, 0)]
    return bool(data)


def _end(process: Process) -> None:
    """Kill and reap it, if it lives."""
    if process.reap() is None:
        signal_group(process, signal.SIGKILL)
        poll = select.poll()
        poll.register(process.pidfd, select.POLLIN)
        poll.poll(_DEATH * 1000)
        process.reap()
