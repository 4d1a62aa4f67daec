"""Replacing the supervisor's own program: the process, its children and what it holds stay.

1. A trial: the program that is installed now is run beside us, reads what it would be left, and says whether it could.
2. The new program is executed in our place with the listening sockets, the adoption queue, all doors and the lock
   open, and with the record in a memfd (memfd_create(2)). It goes on like any supervisor that takes over, but at once.
3. Workers see their channels end and come back through ``handoff.sock``, which never stopped listening.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from supervisor.errors import PeerError, Refused
from supervisor.host import descriptors
from supervisor.host.processes import no_reaping
from supervisor.wire import record
from supervisor.wire.record import Bequest

REEXEC: Final = "STILLUP_REEXEC"
"""The variable that names the memfd with the bequest."""
TRIAL: Final = "STILLUP_TRIAL"
"""The same, for a trial."""
TRIAL_DEADLINE: Final = 30.0
"""Seconds that a trial may take."""
LAST_LINES: Final = 20
"""Lines of what a failed trial said that are passed on."""


def try_out(bequest: Bequest, environment: Mapping[str, str]) -> None:
    """Run the program that is installed now, as a trial. Blocks.

    Raises:
        Refused: it could not take over; the message has what it said.
    """
    memfd = _write(bequest)
    try:
        with no_reaping():
            done = subprocess.run(  # noqa: S603 - our own program, with our own arguments
                _argv(),
                env={**environment, TRIAL: str(memfd)},
                pass_fds=[memfd],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TRIAL_DEADLINE,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"the new program failed its trial: {error}", code="trial-failed") from error
    finally:
        os.close(memfd)
    if done.returncode:
        said = "\n".join(done.stdout.decode(errors="replace").strip().splitlines()[-LAST_LINES:])
        raise Refused(f"the new program failed its trial (exit {done.returncode}): {said}", code="trial-failed")


def execute(bequest: Bequest, environment: Mapping[str, str]) -> None:
    """Put the program that is installed now in the place of this one. Returns only if that failed.

    Nothing may be started meanwhile: for a moment the descriptors are inheritable.

    Raises:
        OSError: it cannot be executed; everything is as it was.
    """
    memfd = _write(bequest)
    fds = [memfd, bequest.lock, bequest.control, bequest.handoff, *bequest.listeners, *bequest.queue]
    fds += [fd for fd in (bequest.observe, bequest.admin) if fd is not None]
    try:
        for fd in fds:
            os.set_inheritable(fd, True)
        os.execve(sys.executable, _argv(), {**environment, REEXEC: str(memfd)})  # noqa: S606 - no shell is wanted
    finally:
        for fd in fds:
            os.set_inheritable(fd, False)
        os.close(memfd)


def received(variable: str) -> Bequest | None:
    """What a program before this one has left, if the variable says so. The memfd is closed.

    Raises:
        Refused: something was left, and it is not to be understood.
    """
    number = os.environ.pop(variable, "")
    if not number:
        return None
    try:
        with open(int(number), "rb") as file:
            return record.decode_bequest(file.read())
    except (OSError, ValueError, PeerError) as error:
        raise Refused(f"what the program before this one left cannot be read: {error}", code="bequest") from error


def _write(bequest: Bequest) -> int:
    memfd = os.memfd_create("stillup")
    try:
        descriptors.write_all(memfd, record.encode_bequest(bequest))
        os.lseek(memfd, 0, os.SEEK_SET)
    except BaseException:
        os.close(memfd)
        raise
    return memfd


def _argv() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]
