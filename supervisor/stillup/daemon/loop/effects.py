"""Performs the engine's commands on real processes, channels, timers and listeners."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Final

from stillup.core.commands import (
    Announce,
    BeginAccept,
    BeginDrain,
    BeginLeading,
    BeginPause,
    CloseListeners,
    Command,
    DumpStacks,
    EndHook,
    EndPreload,
    Exit,
    GiveShare,
    HurryDrain,
    KeepListeners,
    Kill,
    LeaveStore,
    LetHookRun,
    Reexec,
    RunHook,
    SetTimer,
    Spawn,
    TellAdoption,
    TellCordon,
    Terminate,
)
from stillup.core.events import Event, Exited, LeaderLockKept, Spawned, SpawnFailed, TimerFired, WorkerBootFailed
from stillup.core.model import Release
from stillup.daemon.state.console import Console
from stillup.daemon.state.custody import Custody
from stillup.daemon.state.disk import in_thread
from stillup.daemon.state.feed import Feed
from stillup.daemon.state.figures_store import Figures
from stillup.daemon.workers import prometheus_files
from stillup.daemon.workers.admission import Admission
from stillup.daemon.workers.child_processes import ChildProcesses
from stillup.daemon.workers.hook_processes import HookProcesses
from stillup.daemon.workers.preloads import PreloadError, Preloads
from stillup.daemon.workers.process_starter import ProcessStarter
from stillup.daemon.workers.program import Program
from stillup.daemon.workers.prometheus_files import LiveGauges
from stillup.daemon.workers.worker_channels import WorkerChannels
from stillup.daemon.workers.worker_program import welcome, why_no_worker
from stillup.errors import Refused
from stillup.host import leader_lock
from stillup.host.accounts import Account
from stillup.host.blocking_close import close_socket_in_thread
from stillup.host.fingerprint import fingerprint
from stillup.host.processes import Process, start_trouble
from stillup.wire import handoff_messages

logger = logging.getLogger("stillup")

LOCK_LOOK: Final = 2.0
"""Seconds after the order to lead in which who was told has its lock, or another process has."""


class LiveEffects:
    """The one place where decisions become system calls. ``perform`` never waits."""

    def __init__(
        self,
        *,
        submit: Callable[[Event], None],
        admission: Admission,
        channels: WorkerChannels,
        custody: Custody,
        console: Console,
        feed: Feed,
        nonce: Callable[[int], str],
        program: Callable[[Spawn, str], Program],
        figures: Figures,
        hooks: HookProcesses,
        keep_listeners: Callable[[KeepListeners], None] = lambda _: None,
        leave_store: Callable[[], None] = lambda: None,
        account: Account | None = None,
    ) -> None:
        """Perform nothing yet.

        Args:
            submit: takes the events that come of commands.
            admission: lets workers in that are expected.
            channels: of the workers that were let in.
            custody: has the listeners.
            console: gets what workers write until they are ready.
            feed: takes announcements.
            nonce: by serial, what a worker says to be let in.
            program: what a worker is started as, with its nonce.
            figures: has the file in which a worker counts.
            hooks: the processes of hooks; closed with this.
            keep_listeners: lets go of the other listeners, here and in workers.
            leave_store: has the service manager keep nothing any more; it may block.
            account: the workers' user; None for our own.
        """
        self._keep_listeners = keep_listeners
        self._leave_store = leave_store
        self._submit = submit
        self._admission = admission
        self._channels = channels
        self._custody = custody
        self._feed = feed
        self._nonce = nonce
        self._program = program
        self._figures = figures
        self._hooks = hooks
        self._account = account
        self._gauges: dict[int, LiveGauges] = {}
        """By serial, what a worker's app leaves."""
        self._removals: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._starter = ProcessStarter()
        self._children = ChildProcesses(console, self._ended, self._starter)
        self._preloads = Preloads(console, self._starter, self._tell_unfit)
        self._leader_lock = leader_lock.make()
        self._lock_look: asyncio.TimerHandle | None = None
        self._spawned: dict[int, Spawn] = {}
        """By serial, of workers that were started here."""
        self._looked_at: set[int] = set()
        """The generations whose code is being looked at, or is known to have been changed in place."""
        self._timers: set[asyncio.TimerHandle] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def perform(self, command: Command) -> None:
        match command:
            case Spawn():
                self._spawn(command)
            case EndPreload(generation):
                self._preloads.end(generation)
            case BeginAccept(serial):
                self._children.read_out(serial)
                self._channels.tell(serial, handoff_messages.Accept())
            case BeginDrain(serial, times, final, packet, park, sessions):
                # One that cannot be told is told when it comes back; behind this, too, there is a timer.
                drain = handoff_messages.Drain(
                    times.requests,
                    final,
                    packet,
                    park,
                    streams=times.streams,
                    websockets=times.websockets,
                    sessions=sessions,
                )
                self._channels.tell(serial, drain)
            case BeginPause(serial, times, packet, sessions):
                pause = handoff_messages.Pause(times.requests, times.streams, times.websockets, packet, sessions)
                self._channels.tell(serial, pause)
            case TellCordon(serial, on):
                self._channels.tell(serial, handoff_messages.Cordon(on))
            case TellAdoption(serial, on):
                self._channels.tell(serial, handoff_messages.Adopt(on))
            case GiveShare(serial, share):
                self._channels.tell(serial, handoff_messages.Give(share))
            case HurryDrain(serial, every):
                self._channels.tell(serial, handoff_messages.Hurry(every))
            case Terminate(serial):
                self._preloads.call_off(serial)
                self._children.signal(serial, signal.SIGTERM)
            case Kill(serial):
                self._preloads.call_off(serial)
                self._children.signal(serial, signal.SIGKILL)
            case DumpStacks(serial):
                self._children.dump_stacks(serial)
            case BeginLeading(serial, term):
                self._lead(serial, term)
            case SetTimer(timer, at):
                self._set_timer(TimerFired(timer), at)
            case RunHook(hook, release):
                self._hooks.run(hook, release)
            case LetHookRun(number):
                self._hooks.let_run(number)
            case EndHook(number, kill):
                self._hooks.end(number, kill=kill)
            case KeepListeners():
                self._keep_listeners(command)
            case LeaveStore():
                self._custody.outlived = False
                self._begin(in_thread(self._leave_store))
            case CloseListeners():
                self._custody.end()
            case Announce(kind, data):
                self._feed.announce(kind, data)
            case Reexec() | Exit():
                pass  # the engine's own, and its last

    def adopt(self, serial: int, process: Process, release: Release) -> None:
        """Take a worker over that another supervisor started; the process is ours from here on."""
        self._know_gauges(serial, process, release)
        self._children.adopt(serial, process)

    def adopt_hook(self, number: int, process: Process) -> None:
        """Take a hook over that another supervisor started; the process is ours from here on."""
        self._hooks.adopt(number, process)

    def with_terminal(self) -> list[Process]:
        """The workers that have our terminal as their stdin."""
        return self._children.with_terminal()

    async def end_groups(self) -> None:
        """Wait until what workers have started has ended with them, and end it; and what they left is removed."""
        await self._children.end_groups()
        await asyncio.gather(*self._removals)

    def close(self) -> None:
        """Let go of everything; no worker is left by now."""
        for timer in self._timers:
            timer.cancel()
        if self._lock_look is not None:
            self._lock_look.cancel()
        for task in self._tasks | self._removals:
            task.cancel()
        self._children.close()
        self._preloads.close()
        self._hooks.close()
        self._starter.close()
        close_socket_in_thread(self._leader_lock)

    def _lead(self, serial: int, term: int) -> None:
        """Tell a worker to lead; should another one hold its lock, it takes that when it comes free.

        Whoever led keeps no way to a lock that was free: the next leader has another. Whether somebody took this one
        first is looked at LOCK_LOOK seconds later.
        """
        if self._lock_look is not None:
            self._lock_look.cancel()
        pid = leader_lock.held_by(self._leader_lock.fileno())
        if pid is not None and self._children.is_known(pid):
            if pid != self._children.pid(serial):
                self._submit(LeaderLockKept(pid))
        else:
            if pid is not None:
                # Who was never told to lead was given the lock by a worker, and can be told nothing.
                logger.error("pid %d holds the leader's lock, and is no worker: it is another lock from here on", pid)
            with contextlib.suppress(OSError):  # there is no descriptor left: the one that there is will do
                fresh = leader_lock.make()
                close_socket_in_thread(self._leader_lock)  # a worker has it, and may have put anything into it
                self._leader_lock = fresh
        self._channels.tell(serial, handoff_messages.Lead(term), [self._leader_lock.fileno()])
        self._lock_look = self._loop.call_later(LOCK_LOOK, self._look_at_lock, serial, term)

    def _look_at_lock(self, serial: int, term: int) -> None:
        """Tell a worker to lead once more if another process holds its lock."""
        self._lock_look = None
        pid = leader_lock.held_by(self._leader_lock.fileno())
        if pid is not None and pid != self._children.pid(serial):
            self._lead(serial, term)

    def _set_timer(self, event: TimerFired, at: float) -> None:
        def fire() -> None:
            self._timers.discard(handle)
            self._submit(event)

        handle = self._loop.call_at(at, fire)
        self._timers.add(handle)

    def _spawn(self, command: Spawn) -> None:
        try:
            name, captured = f"{command.generation}.{command.slot}", command.release.settings.log_capture
            process = self._children.prepare(command.serial, name, captured=captured)
        except OSError as error:
            self._submit(SpawnFailed(command.serial, f"no pipe for its output: {error.strerror}"))
            return
        self._spawned[command.serial] = command
        self._begin(self._start(command, process))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, command: Spawn, expected: asyncio.Future[Process]) -> None:
        due = self._loop.time() + command.boot_timeout
        serial, nonce = command.serial, self._nonce(command.serial)
        self._admission.expect(nonce, command, expected, lambda: welcome(command, due - self._loop.time()))
        await self._figures.begin(serial)
        program = self._program(command, nonce)
        try:
            forker = await self._preloads.forker(command, program) if program.preload else None
            process, birth = await self._children.start(serial, program, forker=forker)
        except PreloadError as error:
            self._not_started(serial)
            if error.stage:
                self._submit(WorkerBootFailed(serial, error.stage, str(error)))
            self._submit(SpawnFailed(serial, str(error), error.output))
            return
        except Exception as error:  # noqa: BLE001 - whatever it was, the fleet must hear of this worker's end
            self._not_started(serial)
            self._submit(SpawnFailed(serial, f"cannot start {command.release.python}: {start_trouble(error)}"))
            return
        if forker is not None and forker.is_broken:
            self._preloads.end(command.generation)
        self._figures.belongs(serial, process)
        self._know_gauges(serial, process, command.release)
        self._submit(Spawned(serial, process.pid, process.started, birth))
        if command.again:
            await self._look(command)

    def _not_started(self, serial: int) -> None:
        self._children.forget(serial)
        self._forget(serial)

    def _tell_unfit(self, generation: int, why: str) -> None:
        self._feed.announce("preload.unfit", {"generation": generation, "why": why})

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

    def _know_gauges(self, serial: int, process: Process, release: Release) -> None:
        if (gauges := prometheus_files.live_gauges(release, process.pid, self._account)) is not None:
            self._gauges[serial] = gauges

    def _ended(self, serial: int, how: str, output: str) -> None:
        """A worker's process has ended."""
        if (gauges := self._gauges.pop(serial, None)) is not None:
            task = self._loop.create_task(prometheus_files.remove(gauges))
            self._removals.add(task)
            task.add_done_callback(self._removals.discard)
        command = self._spawned.get(serial)
        self._forget(serial)
        if command is not None and (why := why_no_worker(command, output)):
            self._submit(WorkerBootFailed(serial, "interpreter", why))
        self._submit(Exited(serial, how, output))

    def _forget(self, serial: int) -> None:
        self._spawned.pop(serial, None)
        self._admission.forget(serial)
        self._figures.ended(serial)
