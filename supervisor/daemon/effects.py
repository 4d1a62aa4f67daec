"""Performs the engine's commands on real processes, channels, timers and listeners."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from supervisor.core.commands import (
    Accept,
    Announce,
    BeginDrain,
    CloseListeners,
    Command,
    DumpStacks,
    Exit,
    Hurry,
    Kill,
    Reexec,
    SetTimer,
    Spawn,
    Terminate,
)
from supervisor.core.events import Event, Exited, Spawned, SpawnFailed, TimerFired
from supervisor.daemon.console import Console
from supervisor.daemon.disk import in_thread
from supervisor.daemon.feed import Feed
from supervisor.daemon.figures import Figures
from supervisor.daemon.handoff import HandoffDoor
from supervisor.daemon.holder import Holder
from supervisor.daemon.output import Output
from supervisor.daemon.release import worker_environment
from supervisor.errors import Refused
from supervisor.host.fingerprint import fingerprint
from supervisor.host.processes import DUMP_STACKS, LIMIT, Process, block_handled, spawn
from supervisor.wire import handoff
from supervisor.wire.handoff import Welcome

logger = logging.getLogger("stillup")


@dataclass
class Child:
    """A worker's process and the pipes of its boot; one that another supervisor started has none here."""

    process: asyncio.Future[Process]
    output: Output | None = None


class LiveEffects:
    """The one place where decisions become system calls. ``perform`` never waits."""

    def __init__(
        self,
        *,
        submit: Callable[[Event], None],
        door: HandoffDoor,
        holder: Holder,
        console: Console,
        feed: Feed,
        nonce: Callable[[int], str],
        handoff_path: str,
        become: Sequence[str],
        title: str,
        orphan_timeout: float,
        figures: Figures,
    ) -> None:
        """Put the listeners of ``holder`` at the disposal of workers that come in by ``door``.

        ``become``: the words before a worker's command that make it another user's.
        """
        self._submit = submit
        self._door = door
        self._holder = holder
        self._console = console
        self._feed = feed
        self._nonce = nonce
        self._handoff_path = handoff_path
        self._become = tuple(become)
        self._orphan_timeout = orphan_timeout
        self._title = title
        self._figures = figures
        self._loop = asyncio.get_running_loop()
        # Starting a program waits for its disk; one thread keeps the order, and so the slots' numbers in the logs.
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="spawn", initializer=block_handled)
        self._children: dict[int, Child] = {}
        self._looked_at: set[int] = set()
        """The generations whose code is being looked at, or is known to have been changed in place."""
        self._timers: set[asyncio.TimerHandle] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def perform(self, command: Command) -> None:
        match command:
            case Spawn():
                self._spawn(command)
            case Accept(serial):
                self._door.tell(serial, handoff.Accept())
            case BeginDrain(serial, timeout, final, packet, park):
                # One that cannot be told is told when it comes back; behind this, too, there is a timer.
                self._door.tell(serial, handoff.Drain(timeout, final, packet, park))
            case Hurry(serial):
                self._door.tell(serial, handoff.Hurry())
            case Terminate(serial):
                self._signal(serial, signal.SIGTERM)
            case Kill(serial):
                self._signal(serial, signal.SIGKILL)
            case DumpStacks(serial):
                self._dump_stacks(serial)
            case SetTimer(timer, at):
                self._set_timer(TimerFired(timer), at)
            case CloseListeners():
                self._holder.end()
            case Announce(kind, data):
                self._feed.announce(kind, data)
            case Reexec() | Exit():
                pass  # the engine's own, and its last

    def adopt(self, serial: int, process: Process) -> None:
        """Take a worker over that another supervisor started; the process is ours from here on."""
        child = Child(self._loop.create_future())
        child.process.set_result(process)
        self._children[serial] = child
        self._loop.add_reader(process.pidfd, self._ended, serial)

    def close(self) -> None:
        """Let go of everything; no worker is left by now."""
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        for child in self._children.values():
            if child.output is not None:
                child.output.close()
        self._spawner.shutdown(wait=False)

    def _set_timer(self, event: TimerFired, at: float) -> None:
        def fire() -> None:
            self._timers.discard(handle)
            self._submit(event)

        handle = self._loop.call_at(at, fire)
        self._timers.add(handle)

    def _signal(self, serial: int, number: signal.Signals) -> None:
        child = self._children.get(serial)
        # A process that does not exist yet is signalled when it does: the fleet gives the order again.
        if child is not None and child.process.done():
            child.process.result().signal(number)

    def _dump_stacks(self, serial: int) -> None:
        child = self._children.get(serial)
        # An app may have taken the signal for itself, or its handler away; without one it would kill.
        if child is not None and child.process.done() and not child.process.result().signal_if_caught(DUMP_STACKS):
            logger.warning("where worker pid %d hangs cannot be shown", child.process.result().pid)

    def _spawn(self, command: Spawn) -> None:
        try:
            output = Output(self._console)
        except OSError as error:
            self._submit(SpawnFailed(command.serial, f"no pipe for its output: {error.strerror}"))
            return
        child = Child(self._loop.create_future(), output)
        self._children[command.serial] = child
        task = self._loop.create_task(self._start(command, child, output))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, command: Spawn, child: Child, output: Output) -> None:
        due = self._loop.time() + command.boot_timeout
        release = command.release
        nonce = self._nonce(command.serial)
        self._door.expect(nonce, command, child.process, lambda: self._welcome(command, due - self._loop.time()))
        environment = worker_environment(command, self._handoff_path, nonce)
        await self._figures.begin(command.serial)
        argv = [*self._become, release.python, "-P", "-m", "supervisor.worker"]
        argv.append(f"{self._title}:{command.generation}.{command.slot}")
        try:
            # Another user's is not to have our terminal.
            starts = partial(spawn, argv, environment, *output.write_ends, session=bool(self._become))
            process = await self._loop.run_in_executor(self._spawner, starts)
        except Exception as error:  # noqa: BLE001 - whatever it was, the fleet must hear of this worker's end
            self._forget(command.serial)
            self._submit(SpawnFailed(command.serial, f"cannot start {release.python}: {_reason(error)}"))
            return
        child.process.set_result(process)
        self._figures.belongs(command.serial, process)
        output.started()
        self._submit(Spawned(command.serial, process.pid, process.started))
        self._loop.add_reader(process.pidfd, self._ended, command.serial)
        if command.again:
            await self._look(command)

    async def _look(self, command: Spawn) -> None:
        """Say, once a generation, that its code was changed under it: this worker may run something else.

        Afterwards, and at one generation once at a time: who replaces a dead worker does not wait for a slow disk.
        """
        generation, release = command.generation, command.release
        if generation in self._looked_at:
            return
        self._looked_at.add(generation)
        try:
            changed = await in_thread(fingerprint, release.directory) != release.fingerprint
        except Refused as refusal:
            logger.warning("it is not known whether the code of gen %d was changed: %s", generation, refusal)
            changed = False
        if not changed:
            self._looked_at.discard(generation)
            return
        data = {"generation": generation, "worker": f"{generation}.{command.slot}", "release": release.label}
        self._feed.announce("release.changed", data)

    def _welcome(self, command: Spawn, boot_left: float) -> Welcome:
        release = command.release
        return Welcome(
            protocol=handoff.PROTOCOL,
            worker=command.slot,
            generation=command.generation,
            app=release.app,
            directory=release.directory,
            app_dir=release.app_dir,
            options=dict(release.options),
            drain_timeout=command.drain_timeout,
            boot_timeout=max(boot_left, 0.1),
            health_path=release.health_path,
            health_host=release.health_host,
            max_age=release.max_worker_age,
            max_rss=release.max_worker_rss,
            orphan_timeout=self._orphan_timeout,
        )

    def _ended(self, serial: int) -> None:
        """A worker's pidfd has become readable: it is dead."""
        child = self._children[serial]
        process = child.process.result()
        how = process.reap()
        if how is None:
            return
        self._loop.remove_reader(process.pidfd)
        process.close()
        tail = child.output.tail() if child.output is not None else ""
        self._forget(serial)
        self._submit(Exited(serial, how, tail))

    def _forget(self, serial: int) -> None:
        child = self._children.pop(serial)
        if child.output is not None:
            child.output.close()
        if not child.process.done():
            child.process.cancel()
        self._door.forget(serial)
        self._figures.ended(serial)


def _reason(error: Exception) -> str:
    """Why a process could not be started."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return f"{error.strerror} ({LIMIT})" if error.errno == errno.EAGAIN else error.strerror
