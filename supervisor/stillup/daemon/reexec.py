"""Replacing the supervisor's own program: the process, its children and what it holds stay.

1. A trial: the program that is installed now is run beside us, reads what it would be left, and says whether it could.
2. The new program is executed in our place with the listening sockets, the adoption queue, its own sockets and the lock
   open, and with the record in a memfd (memfd_create(2)). It goes on like any supervisor that takes over, but at once.
3. An interim server answers probes from the first program's last word to the second one's first (``control``).
4. Workers see their channels end and come back through ``handoff.sock``, which never stopped listening.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from stillup.core.events import ReexecAsked
from stillup.core.step import step
from stillup.core.values import replace
from stillup.daemon.control import interim_handover
from stillup.daemon.control.interim_handover import Interim
from stillup.daemon.loop.engine import Engine
from stillup.daemon.state.disk import in_thread
from stillup.errors import PeerError, Refused
from stillup.host import descriptors
from stillup.host.processes import no_reaping
from stillup.wire import record_format
from stillup.wire.interim_messages import InterimOrders
from stillup.wire.record_format import ReexecState

logger = logging.getLogger("stillup")

REEXEC: Final = "STILLUP_REEXEC"
"""The variable that names the memfd with the state that is handed on."""
TRIAL: Final = "STILLUP_TRIAL"
"""The same, for a trial."""
TRIAL_DEADLINE: Final = 30.0
"""Seconds that a trial may take."""
LAST_LINES: Final = 20
"""Lines of what a failed trial said that are passed on."""


class Probes(msgspec.Struct, frozen=True):
    """Where and how probes are answered now."""

    orders: InterimOrders
    sockets: Sequence[socket.socket]
    answers: Mapping[str, str]


class ProgramReplacement:
    """Replaces the program, one attempt at a time."""

    def __init__(
        self,
        engine: Engine,
        state: Callable[[], ReexecState],
        environment: Mapping[str, str],
        probes: Callable[[], Probes],
        interim: Interim | None,
    ) -> None:
        """Replace it when asked to.

        Args:
            engine: which decides whether it may be replaced.
            state: what the new program would be handed on now.
            environment: what it is started with.
            probes: where and how probes are answered now.
            interim: that of the program before this one.
        """
        self._engine = engine
        self._state = state
        self._environment = environment
        self._probes = probes
        self._interim = interim
        self._trying = False

    async def ask(self) -> None:
        """Have the program replaced, if the one that is installed now passes its trial.

        Raises:
            Refused: it does not, or something is under way that only this program can go on with.
        """
        if self._trying:
            raise Refused("the new program is being tried already", code="out-of-order")
        step(self._engine.fleet, ReexecAsked(), asyncio.get_running_loop().time())  # refused now is refused early
        self._trying = True
        try:
            await in_thread(try_out, self._state(), self._environment)
            await self._start_interim()
            await self._engine.ask(ReexecAsked())
        except OSError as error:
            raise Refused(f"the new program cannot be tried: {error.strerror}", code="unavailable") from error
        except Refused:
            if self._interim is not None:
                await in_thread(self._interim.close)
                self._interim = None
            raise
        finally:
            self._trying = False

    async def _start_interim(self) -> None:
        if self._interim is not None:
            return  # the one before has not ended yet
        probes = self._probes()
        try:
            self._interim = await in_thread(interim_handover.start, probes.orders, probes.sockets, self._environment)
        except Refused as refusal:
            logger.warning("probes are not answered while our program is replaced: %s", refusal)

    def leave(self) -> None:
        """Let the interim server answer from here on."""
        if self._interim is not None:
            self._interim.begin(self._probes().answers)

    async def take_back(self, serve: Callable[[str, socket.socket], None]) -> None:
        """End the interim server, if there is one; ``serve`` gets what it has held, with the names of the sockets."""
        if self._interim is not None:
            interim, self._interim = self._interim, None
            await interim.end(serve)

    def replace(self) -> None:
        """Put the new program in the place of this one. Returns only if that failed, which is logged."""
        try:
            interim = self._interim
            pair, pid = (interim.pair.fileno(), interim.pid) if interim is not None else (None, 0)
            execute(replace(self._state(), interim=pair, interim_pid=pid), self._environment)
        except OSError as error:
            logger.error("our program cannot be replaced: %s; this one goes on", error)  # noqa: TRY400 - no bug


def try_out(reexec_state: ReexecState, environment: Mapping[str, str]) -> None:
    """Run the program that is installed now, as a trial. Blocks.

    Raises:
        Refused: it could not take over; the message has what it said.
    """
    memfd = _write(reexec_state)
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


def execute(reexec_state: ReexecState, environment: Mapping[str, str]) -> None:
    """Put the program that is installed now in the place of this one. Returns only if that failed.

    Nothing may be started meanwhile: for a moment the descriptors are inheritable.

    Raises:
        OSError: it cannot be executed; everything is as it was.
    """
    memfd = _write(reexec_state)
    fds = [
        memfd,
        reexec_state.lock,
        reexec_state.control,
        reexec_state.handoff,
        *reexec_state.listeners,
        *reexec_state.queue,
    ]
    others = reexec_state.observe, reexec_state.admin, reexec_state.agent, reexec_state.interim
    fds += [fd for fd in others if fd is not None]
    try:
        for fd in fds:
            os.set_inheritable(fd, True)
        os.execve(sys.executable, _argv(), {**environment, REEXEC: str(memfd)})  # noqa: S606 - no shell is wanted
    finally:
        for fd in fds:
            os.set_inheritable(fd, False)
        os.close(memfd)


def received(variable: str) -> ReexecState | None:
    """What a program before this one has left, if the variable says so. The memfd is closed.

    Raises:
        Refused: something was left, and it is not to be understood.
    """
    number = os.environ.pop(variable, "")
    if not number:
        return None
    try:
        with open(int(number), "rb") as file:
            return record_format.decode_reexec_state(file.read())
    except (OSError, ValueError, PeerError) as error:
        raise Refused(f"what the program before this one left cannot be read: {error}", code="reexec-state") from error


def _write(reexec_state: ReexecState) -> int:
    memfd = os.memfd_create("stillup")
    try:
        descriptors.write_all(memfd, record_format.encode_reexec_state(reexec_state))
        os.lseek(memfd, 0, os.SEEK_SET)
    except BaseException:
        os.close(memfd)
        raise
    return memfd


def _argv() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]
