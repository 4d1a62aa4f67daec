"""Preloaders: of each generation one process that has imported the app, and that its workers are forked from.

1. The first worker of a generation has it started, and waits with all others until the app is imported. Nothing blocks
   meanwhile: workers of other generations are started as ever.
2. An import that fails is the failure of all who wait, as if it were their own. One that does not end is ended with the
   last who waits: its boot has a deadline.
3. What is unfit to be forked is told once, and remembered for the generation: each worker imports the app by itself.
4. One that has ended, or does not answer, costs a worker that was to come of it an import of its own; the next one has
   a new preloader.
5. What it runs is the app's code, so it is trusted no more than a worker: see ``templates`` for whom it says it forked.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
from collections.abc import Callable
from typing import Final

import msgspec

from stillup.core.commands import Spawn
from stillup.daemon.state.console import Console
from stillup.daemon.workers.child_processes import ChildProcesses
from stillup.daemon.workers.process_starter import ProcessStarter
from stillup.daemon.workers.program import Program
from stillup.daemon.workers.templates import FORKED_WITHIN, Forker
from stillup.daemon.workers.worker_program import load, preloader_program, why_no_worker
from stillup.errors import PeerError
from stillup.host import descriptors
from stillup.host.forking import become_subreaper
from stillup.host.processes import start_trouble
from stillup.wire.handoff_messages import BootFailed
from stillup.wire.plain_text import escaped
from stillup.wire.template_messages import PACKET_LIMIT, decode_loaded, decode_said, encode
from stillup.wire.worker_words import in_short

logger = logging.getLogger("stillup")

LONGEST_REASON: Final = 500
"""Characters of what it says that a generation is unfit for."""


class PreloadError(Exception):
    """A worker cannot be started, since its preloader has not imported the app."""

    def __init__(self, message: str, output: str = "", *, stage: str = "") -> None:
        """Say why.

        Args:
            message: for people.
            output: the last of what the preloader wrote.
            stage: of a worker's boot; empty if the fleet knows more of it.
        """
        super().__init__(message)
        self.stage = stage
        self.output = output


class _Preload(msgspec.Struct, eq=False):
    """A preloader, from before its process is there to its end, and our end of its socket. Owns the socket."""

    serial: int
    command: Spawn
    """Of the first worker that is to come of it."""
    sock: socket.socket
    waiting: dict[int, asyncio.Future[Forker | None]] = {}
    """By serial, workers that are to come of it."""
    forker: Forker | None = None
    """Once the app is imported."""
    failed: tuple[str, str] | None = None
    """Stage and message of why it is not."""
    unfit: str = ""
    """Why none can be forked: each worker imports the app, as soon as this process has let go of all that it holds."""
    loading: asyncio.Task[None] | None = None
    """Starts it, and hears what becomes of the import."""
    is_one: bool = False
    """Whether it has said that it is one: another version's worker ends instead."""
    ends: bool = False
    """Whether it was told to end: nobody comes of it any more."""

    @property
    def generation(self) -> int:
        return self.command.generation

    def settle(self, outcome: Forker | PreloadError | None) -> None:
        """Let all go on who wait."""
        waiting, self.waiting = self.waiting, {}
        for place in waiting.values():
            if place.done():  # its worker's task was cancelled
                continue
            if isinstance(outcome, PreloadError):
                place.set_exception(outcome)
            else:
                place.set_result(outcome)


class Preloads:
    """Those of one supervisor. Owns them."""

    def __init__(self, console: Console, starter: ProcessStarter, unfit: Callable[[int, str], None]) -> None:
        """Begin with none.

        Args:
            console: gets what they write while they import.
            starter: starts them; the caller's.
            unfit: told of a generation that cannot be forked, and why.
        """
        self._starter = starter
        self._tell_unfit = unfit
        self._loop = asyncio.get_running_loop()
        self._children = ChildProcesses(console, self._ended, starter)
        self._preloads: dict[int, _Preload] = {}
        """By serial: beside the one of a generation there may be another that ends."""
        self._serials = itertools.count(1)
        self._unfit: set[int] = set()
        """Generations whose workers import the app by themselves."""

    async def forker(self, command: Spawn, worker: Program) -> Forker | None:
        """What a worker is to be forked from; None if it is to import the app by itself.

        Raises:
            PreloadError: it cannot be started.
        """
        if command.generation in self._unfit:
            return None
        preload = self._of(command.generation) or self._begin(command, worker)
        if preload is None:
            return None
        if preload.forker is not None:
            return preload.forker
        place: asyncio.Future[Forker | None] = self._loop.create_future()
        preload.waiting[command.serial] = place
        return await place

    def call_off(self, serial: int) -> None:
        """Have a worker not wait any more; with the last one its preloader ends, and its last output is known."""
        for preload in self._preloads.values():
            if serial not in preload.waiting:
                continue
            if len(preload.waiting) == 1:
                self._end(preload)
            else:
                preload.waiting.pop(serial).set_exception(PreloadError("it was called off"))

    def end(self, generation: int) -> None:
        """End that of a generation, which has left, or that does not fork. Nothing happens if there is none."""
        self._unfit.discard(generation)
        if (preload := self._of(generation)) is not None:
            self._end(preload)

    def close(self) -> None:
        """End them all; workers stay. Whoever waits does so in vain."""
        for serial, preload in tuple(self._preloads.items()):
            self._end(preload)
            self._forget(serial)
        self._children.close()

    def _of(self, generation: int) -> _Preload | None:
        """The one that workers of a generation come of."""
        return next((one for one in self._preloads.values() if one.generation == generation and not one.ends), None)

    def _end(self, preload: _Preload) -> None:
        preload.ends = True
        self._children.signal(preload.serial, signal.SIGKILL)

    def _begin(self, command: Spawn, worker: Program) -> _Preload | None:
        serial, generation = next(self._serials), command.generation
        captured = command.release.settings.log_capture
        with contextlib.ExitStack() as undo:
            try:
                self._children.prepare(serial, f"{generation}.preload", captured=captured)
                undo.callback(self._children.forget, serial)
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            except OSError as error:
                logger.warning("gen %d is not preloaded: no descriptors for that: %s", generation, error.strerror)
                return None
            undo.pop_all()
        ours.setblocking(False)
        become_subreaper()  # so that this process is the parent of what it forks
        self._preloads[serial] = preload = _Preload(serial, command, ours)
        preload.loading = self._loop.create_task(self._load(preload, worker, theirs))
        return preload

    async def _load(self, preload: _Preload, worker: Program, theirs: socket.socket) -> None:
        """Start it, and hear what becomes of the import."""
        command, serial = preload.command, preload.serial
        due = self._loop.time() + command.boot_timeout
        try:
            with theirs:
                program = preloader_program(worker, preload.generation)
                process, _ = await self._children.start(serial, program, theirs.fileno())
        except Exception as error:  # noqa: BLE001 - whatever it was, the workers must hear of it
            self._children.forget(serial)
            self._forget(serial)
            preload.settle(PreloadError(f"cannot start {command.release.python}: {start_trouble(error)}"))
            return
        if preload.ends:  # it could not be signalled before
            self._end(preload)
            return
        try:
            decode_said(await self._loop.sock_recv(preload.sock, PACKET_LIMIT))
            preload.is_one = True
            descriptors.send(preload.sock, encode(load(command, due - self._loop.time())))
            said = decode_loaded(await self._loop.sock_recv(preload.sock, PACKET_LIMIT))
        except (PeerError, OSError) as error:  # if it has ended, its end is told next
            logger.debug("the preloader of gen %d: %s", preload.generation, error)
            self._children.signal(serial, signal.SIGKILL)
            return
        if isinstance(said, BootFailed):
            preload.failed = in_short(said)
            self._children.signal(serial, signal.SIGKILL)  # its end brings its last output
        elif said.unfit:
            preload.unfit = escaped("; ".join(said.unfit))[:LONGEST_REASON]
            self._children.signal(serial, signal.SIGKILL)
        else:
            preload.sock.settimeout(FORKED_WITHIN)
            preload.forker = Forker(process, preload.sock)
            preload.settle(preload.forker)

    def _is_unfit(self, preload: _Preload, why: str) -> None:
        self._unfit.add(preload.generation)
        self._tell_unfit(preload.generation, why)
        preload.settle(None)

    def _ended(self, serial: int, how: str, output: str) -> None:
        """A preloader's process has ended."""
        if serial not in self._preloads:  # we were closed
            return
        preload = self._forget(serial)
        if preload.failed is not None:
            stage, message = preload.failed
            preload.settle(PreloadError(message, output, stage=stage))
        elif preload.ends:
            preload.settle(PreloadError("it was called off", output))
        elif preload.unfit:
            self._is_unfit(preload, preload.unfit)
        elif preload.forker is not None:
            generation = preload.generation
            logger.warning("the preloader of gen %d has ended (%s): the next worker has a new one", generation, how)
        elif why := why_no_worker(preload.command, output):
            preload.settle(PreloadError(why, output, stage="interpreter"))
        elif not preload.is_one:
            self._is_unfit(preload, f"its interpreter has no preloader, but another stillup: it {how}")
        else:
            preload.settle(PreloadError(f"importing the app, its preloader {how}", output, stage="import"))

    def _forget(self, serial: int) -> _Preload:
        preload = self._preloads.pop(serial)
        if preload.loading is not None and preload.loading is not asyncio.current_task():
            # Its process has ended, and something that it forked may hold the other end: nothing would come any more.
            self._loop.remove_reader(preload.sock)
            preload.loading.cancel()
        self._starter.close_socket(preload.sock)
        return preload
