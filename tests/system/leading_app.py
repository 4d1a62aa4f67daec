"""An app whose workers want to lead, and which holds a lock of its own while one does: two would die of it, loudly.

What it does is written to ``leads``, a line each: ``SECONDS WHAT WORKER PID``, by the monotonic clock; WHAT is
``begins``, ``told`` (to let go), ``ends``, or ``two`` if another process leads as well. Files in the working directory
tell it more: ``give-up`` has it let go (and goes with that), ``hold`` has it never let go, ``fork`` has it leave a
child behind, which lives until the file ``child`` is gone.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from stillup.app import Leader, current

Message = MutableMapping[str, Any]
LOOK = 0.02
PF_EXITING = 0x4
ME = f"{os.environ.get('STILLUP_GENERATION')}.{os.environ.get('STILLUP_WORKER')}"


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Lead from the startup on, and answer with who answers."""
    if scope["type"] == "lifespan":
        await receive()
        task = asyncio.create_task(_lead())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        while _says("hold"):  # noqa: ASYNC110 - who removes it is another process
            await asyncio.sleep(LOOK)
        task.cancel()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = ME.encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def _lead() -> None:
    while True:
        async with current().leader as leader:
            fd = os.open("lock", os.O_CREAT | os.O_RDWR)
            try:
                if not _lock(fd):
                    _note("two")
                    os._exit(70)
                _note("begins")
                if _says("fork"):
                    _fork()
                await _until_it_ends(leader)
            finally:
                _note("ends")
                os.close(fd)


def _lock(fd: int) -> bool:
    """Take the lock of the app's own; False if another process that leads has it.

    Of one that was killed the kernel lets go of one lock after another: the leader's may be free a moment before.
    """
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not _is_exiting(int(os.pread(fd, 16, 0) or b"0")):
                return False
        else:
            os.pwrite(fd, b"%-16d" % os.getpid(), 0)
            return True


def _is_exiting(pid: int) -> bool:
    """Whether a process has ended, or closes what it has open (PF_EXITING of the flags in proc_pid_stat(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return bool(int(stat.rpartition(")")[2].split()[6]) & PF_EXITING)


async def _until_it_ends(leader: Leader) -> None:
    while leader.leads:
        if _says("give-up"):
            os.unlink("give-up")
            return
        await asyncio.sleep(LOOK)
    _note("told")
    while _says("hold"):  # noqa: ASYNC110 - as above
        await asyncio.sleep(LOOK)


def _says(file: str) -> bool:
    return os.path.exists(file)


def _fork() -> None:
    """Leave a child behind that does not lead, and has no lock; not even the one of the app's own."""
    if os.fork():
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    os.closerange(3, 1024)
    if not current().leader.leads:
        _note("forked")
    while _says("child"):
        time.sleep(LOOK)
    os._exit(0)


def _note(what: str) -> None:
    with Path("leads").open("a") as file:
        file.write(f"{time.monotonic():.6f} {what} {ME} {os.getpid()}\n")
