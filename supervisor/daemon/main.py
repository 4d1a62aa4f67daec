"""Bringing the supervisor up and down: what is opened, in which order, and closed again."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ParamSpec, TypeVar

from supervisor import __version__
from supervisor.core.commands import Exit
from supervisor.core.events import ReexecAsked, ReloadAsked, TookOver
from supervisor.core.model import Fleet
from supervisor.core.release import same
from supervisor.core.step import step
from supervisor.daemon import fdstore, preflight, record, reexec, strays, takeover, watchdog
from supervisor.daemon.api import Api
from supervisor.daemon.beats import watch_beats
from supervisor.daemon.config import Settings
from supervisor.daemon.console import Console, set_up_logging
from supervisor.daemon.disk import Disk, in_thread
from supervisor.daemon.door import ControlDoor
from supervisor.daemon.effects import LiveEffects
from supervisor.daemon.engine import Engine
from supervisor.daemon.fdstore import FdStore
from supervisor.daemon.feed import Feed
from supervisor.daemon.figures import Figures, Store
from supervisor.daemon.handlers import Handlers
from supervisor.daemon.handoff import HandoffDoor
from supervisor.daemon.history import History
from supervisor.daemon.holder import Holder
from supervisor.daemon.identities import Identities
from supervisor.daemon.own_sockets import OwnSockets
from supervisor.daemon.readiness import Readiness
from supervisor.daemon.record import Recorder
from supervisor.daemon.release import resolve
from supervisor.daemon.signals import Signals
from supervisor.daemon.trace import Trace
from supervisor.daemon.watch import watch
from supervisor.errors import Refused
from supervisor.host import descriptors, signal_stack, systemd
from supervisor.host.descriptors import ensure_standard
from supervisor.host.processes import HANDLED, block_handled, close_on_exec_all, raise_descriptor_limit
from supervisor.host.runtime import RuntimeDirectory, claim
from supervisor.host.systemd import Notifier
from supervisor.wire.operations import Door
from supervisor.wire.places import CONTROL, EVENTS, HANDOFF, RECORD
from supervisor.wire.record import SCHEMA, Bequest

logger = logging.getLogger("stillup")

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_PATH = 107
"""Bytes of a socket's path (unix(7))."""
HANDLING = 3
"""Turns of the loop from a signal that has come to its handler's work (asyncio reads a pipe, then calls, then runs)."""
ORPHAN_TIMEOUT = 300.0
"""Seconds that workers serve on without a supervisor, unless it was started from a terminal."""
_LEVELS = {"trace": logging.DEBUG}


def run(settings: Settings) -> int:
    """Be the supervisor until the service ends; the exit code.

    Raises:
        Refused: the service cannot start as it was asked for. Nothing is left behind.
    """
    preflight.check_platform()
    if (trial := reexec.received(reexec.TRIAL)) is not None:
        return preflight.try_out(settings, trial)
    bequest = reexec.received(reexec.REEXEC)
    ensure_standard()
    # So that a supervisor which the manager's watchdog ends (SIGABRT) says where it was stuck.
    faulthandler.enable(2)
    signal_stack.widen()
    close_on_exec_all()
    raise_descriptor_limit()
    # Inherited as ignored it would keep us from learning how a worker ended (waitid(2)).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Each of these would kill us until its handler is in place, which is when the loop runs.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    console = Console()
    try:
        level = _LEVELS.get(settings.log_level) or logging.getLevelNamesMapping()[settings.log_level.upper()]
        set_up_logging(console, level, settings.log_format)
        with contextlib.ExitStack() as stack:
            try:
                supervisor = Supervisor(settings, console, stack, bequest)
            except OSError as error:
                raise Refused(f"cannot start: {error}", code="unavailable") from error
            return asyncio.run(supervisor.run())
    finally:
        console.close()


class Supervisor:
    """One run of one service. What the constructor opens, ``stack`` closes."""

    def __init__(
        self, settings: Settings, console: Console, stack: contextlib.ExitStack, bequest: Bequest | None
    ) -> None:
        """Claim the runtime directory, then bind; or go on with what a program before this one has left.

        Raises:
            Refused: something is in the way.
        """
        self._settings = settings
        self._console = console
        self._environment = dict(os.environ)
        """As we were started: what comes after us is to find the same."""
        self._policy = replace(settings.policy, parks=fdstore.is_there())
        self._notifier = Notifier()
        self._signals = Signals()
        self._release = resolve(settings)
        path = preflight.runtime_path(settings)
        if bequest is not None:
            self._runtime = RuntimeDirectory(path, bequest.lock, bequest.record.made_directory)
        else:
            self._runtime = claim(path, chosen=bool(settings.runtime_dir or os.environ.get("RUNTIME_DIRECTORY")))
        # To be looked for before our own files take their place.
        self._record = bequest.record if bequest is not None else record.read(self._runtime)
        if self._record is not None and self._record.made_directory:
            self._runtime = replace(self._runtime, created=True)
        self._left_behind = any(os.path.lexists(self._runtime.file(name)) for name in (RECORD, HANDOFF))
        # The files go before the sockets: whoever sees the end of a connection finds the directory free.
        self._files = contextlib.ExitStack()
        self._files.callback(self._runtime.close)
        stack.callback(self._files.close)
        if self._record is not None:
            takeover.check_user(self._record, settings.rights.worker_uid)
        passed = fdstore.Passed() if bequest is not None else fdstore.sort(systemd.passed(), settings.binds)
        tried = fdstore.of_record(bequest.record) if bequest is not None else frozenset()
        self._store = FdStore(self._notifier, passed.names, tried)
        self._holder = Holder(settings.binds, passed.activated, outlived=self._policy.parks)
        stack.callback(self._holder.close)
        names = {known.cookie: known.name for known in self._record.listeners} if self._record is not None else {}
        self._holder.take_back(passed.named(names), passed.queue)
        if bequest is not None:
            self._holder.inherit(bequest)
        elif not self._left_behind:
            self._holder.open(settings.binds, settings.backlog)
        self._sockets = OwnSockets(self._runtime, settings.rights, bequest, stack, self._files)

    async def run(self) -> int:
        """Serve until the fleet has come to its end; the exit code."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(initializer=block_handled))
        settings = self._settings
        self._recorder = recorder = Recorder(
            self._runtime, settings.workers, self._record, drain_timeout=settings.policy.drain_timeout
        )
        self._figures = figures = Figures(Store(self._runtime))
        fleet = Fleet(policy=self._policy, size=settings.workers)
        self._engine = engine = Engine(fleet, recorder, figures.changed)
        self._trace = Trace(self._worker_of)
        rights = settings.rights
        self._door = door = HandoffDoor(
            self._sockets.handoff,
            self._holder,
            engine.submit,
            engine.ask,
            self._trace.tap,
            worker_uid=rights.worker_uid,
            figures=figures.descriptors,
        )
        self._history = history = History(self._runtime)
        feed = Feed(Readiness(self._notifier, lambda: engine.fleet), history)
        self._effects = effects = LiveEffects(
            submit=engine.submit,
            door=door,
            holder=self._holder,
            console=self._console,
            feed=feed,
            nonce=recorder.nonce,
            handoff_path=self._runtime.file(HANDOFF),
            become=rights.become,
            title=settings.name,
            orphan_timeout=self._orphan_timeout(),
            figures=figures,
        )
        disk = Disk(settings)
        self._signals.serve(engine, disk, self._reexec)
        self._replacing = False
        self._open_doors: list[ControlDoor] = []
        self._identities = Identities(self._worker_pids, self._runtime.file(HANDOFF), rights.worker_uid)
        self._signals.begin(history.run())
        try:
            await self._take_up()
            recorder.holds(self._holder.records(), self._holder.cookies)
            if self._policy.parks:
                await self._keep()
            door.admits.set()
            self._greet()
            if settings.reload is not None:
                self._signals.begin(watch(settings.reload, self._signals.reload))
            if settings.policy.hang_timeout is not None:
                self._signals.begin(watch_beats(door.catch_up, engine.submit, lambda: descriptors.writable((1, 2))))
            if (limit := systemd.watchdog()) is not None:
                self._signals.begin(watchdog.feed(limit, engine.turn, self._notifier.alive))
            self._signals.take()
            self._signals.begin(strays.reap())  # now that those who live are held
            code = await self._serve(self._api(disk, feed))
            await history.settle()
            await figures.remove()
            # The last worker has gone: there is nothing that anybody could take over.
            self._files.callback(self._runtime.remove, RECORD, EVENTS)
            return code
        finally:
            self._signals.end()
            recorder.close()
            figures.close()
            self._files.close()
            door.close()
            effects.close()
            self._trace.end()
            history.close()
            await self._close_doors()
            self._identities.close()

    async def _keep(self) -> None:
        """Have systemd keep what is in custody; without that a restart is a stop like any other, and a start."""
        try:
            await in_thread(self._store.keep, *self._holder.descriptors())
        except (OSError, Refused) as error:
            logger.error("systemd does not keep our sockets over a restart: %s", error)  # noqa: TRY400 - no bug
            fleet = self._engine.fleet
            self._engine.fleet = replace(fleet, policy=replace(fleet.policy, parks=False))
            self._holder.outlived = False

    def _api(self, disk: Disk, feed: Feed) -> Api:
        """The control API of this run."""
        handlers = Handlers(
            self._engine,
            disk.resolve,
            disk.look,
            self._reexec,
            name=self._settings.name,
            holder=self._holder,
            trace=self._trace,
            history=self._history,
            reexecs=self._recorder.latest.reexecs,
            figures=self._figures,
        )
        rights = self._settings.rights
        return Api(handlers.all, rights.rules, feed.announce, rights.observe_gid)

    async def _serve(self, api: Api) -> int:
        """Answer callers and run the engine; the exit code. Does not return if the program is replaced."""
        while True:
            for door, sock in self._sockets.doors().items():
                app = api.at(door)
                traced = self._trace.traced(app) if door is Door.CONTROL else app
                self._open_doors.append(ControlDoor(sock.dup(), traced, self._identities.meet, name=door))
            last = await self._engine.run(self._effects)
            if isinstance(last, Exit):
                return last.code
            # What comes from here on is for the program that comes, too.
            await self._signals.block()
            self._trace.end()
            await self._history.settle()
            self._history.end()
            await self._close_doors()
            await self._figures.written()
            if not self._engine.asked_to_stop:
                self._replace_program()  # which returns if it could not
            self._history.go_on()
            self._signals.take()

    async def _reexec(self) -> None:
        """Replace the program, if the one that is installed now passes its trial.

        Raises:
            Refused: it does not, or something is under way that only this program can go on with.
        """
        if self._replacing:
            raise Refused("the new program is being tried already", code="out-of-order")
        step(self._engine.fleet, ReexecAsked(), asyncio.get_running_loop().time())  # refused now is refused early
        self._replacing = True
        try:
            await in_thread(reexec.try_out, self._bequest(), self._environment)
        except OSError as error:
            raise Refused(f"the new program cannot be tried: {error.strerror}", code="unavailable") from error
        finally:
            self._replacing = False
        await self._engine.ask(ReexecAsked())

    def _replace_program(self) -> None:
        self._signals.hand_on()
        self._console.flush()
        try:
            reexec.execute(self._bequest(), self._environment)
        except OSError as error:
            logger.error("our program cannot be replaced: %s; this one goes on", error)  # noqa: TRY400 - no bug

    def _bequest(self) -> Bequest:
        latest = self._recorder.latest
        listeners, queue = self._holder.descriptors()
        return Bequest(
            schema=SCHEMA,
            record=replace(latest, reexecs=latest.reexecs + 1),
            path=self._runtime.path,
            lock=self._runtime.lock,
            listeners=listeners,
            queue=queue,
            **self._sockets.bequeathed(),
        )

    def _worker_of(self, pid: int) -> str:
        return next((worker.name for worker in self._engine.fleet.workers.values() if worker.pid == pid), "")

    async def _close_doors(self) -> None:
        """At once: each gives its last answers some time."""
        await asyncio.gather(*(door.close() for door in self._open_doors))
        self._open_doors.clear()

    def _worker_pids(self) -> frozenset[int]:
        return frozenset(worker.pid for worker in self._engine.fleet.workers.values() if worker.pid is not None)

    def _orphan_timeout(self) -> float:
        given = self._settings.orphan_timeout
        if given is not None:
            return given
        return 0.0 if self._signals.had_terminal else ORPHAN_TIMEOUT

    async def _take_up(self) -> None:
        """Begin, from nothing or where another supervisor has ended.

        Raises:
            Refused: that cannot be.
        """
        if not self._left_behind:
            await self._figures.remove()  # nobody who is alive counts in what there may be
            self._engine.submit(ReloadAsked(self._release, "start"))
            return
        try:
            await self._take_over()
        except OSError as error:
            raise Refused(f"cannot take over: {error}; the workers serve on", code="unavailable") from error

    async def _take_over(self) -> None:
        """Take custody back from the workers of a supervisor that has ended, and go on where it ended.

        Raises:
            Refused: a listener that nobody has returned cannot be had. The workers go on without us.
        """
        settings, engine, door = self._settings, self._engine, self._door
        if self._record is not None:
            living = takeover.survivors(self._record)
            engine.fleet = replace(self._record.fleet, policy=self._policy)
            for serial, process in living.items():
                door.know(self._recorder.nonce(serial), serial, process)
            living = await takeover.until_custody_is_back(self._record, living, door, self._holder)
            claimants = []
        else:
            claimants = await takeover.hear_claims(door, settings.binds)
            living = {serial: claimant.process for serial, claimant in enumerate(claimants, 1)}
            now = asyncio.get_running_loop().time()
            engine.fleet = takeover.fleet_of(claimants, self._release, self._policy, settings.workers, now)
            self._recorder.claimed({serial: claimant.said.nonce for serial, claimant in enumerate(claimants, 1)})
        await self._figures.load(living)
        whole = self._holder.open(settings.binds, settings.backlog, self._record)
        if not living:
            engine.fleet = Fleet(policy=self._policy, size=settings.workers)
            engine.submit(ReloadAsked(self._release, "start"))
            return
        taken = TookOver(frozenset(living))
        engine.submit(taken)
        for serial, process in living.items():
            self._effects.adopt(serial, process)
        for serial, claimant in enumerate(claimants, 1):
            door.know(claimant.said.nonce, serial, claimant.process)
        if reason := self._reason_to_reload(taken, whole=whole):
            engine.submit(ReloadAsked(self._release, reason))

    def _reason_to_reload(self, taken: TookOver, *, whole: bool) -> str:
        """Why what was found is not what we were started with; empty if it is."""
        engine, record = self._engine, self._record
        if record is None:
            return "no record of what runs"
        fleet = step(engine.fleet, taken, asyncio.get_running_loop().time()).fleet
        running = fleet.pending or fleet.serving
        if running is None:
            return "start"
        if record.workers_wanted != self._settings.workers:
            engine.fleet = replace(engine.fleet, size=self._settings.workers)
            return "another number of workers"
        if not whole:
            return "other listeners"
        return "" if same(running.release, self._release) else "another configuration"

    def _greet(self) -> None:
        settings = self._settings
        where = ", ".join(info.address for info in self._holder.infos)
        logger.info("stillup %s: %s (pid %d) listens on %s", __version__, settings.name, os.getpid(), where)
        logger.info("control: curl --unix-socket %s http://localhost/v1/status", self._runtime.file(CONTROL))
        if address := self._sockets.admin_address():
            logger.info("metrics and probes: http://%s/metrics", address)
        if settings.rights.closed_to_all:
            logger.warning("roles are given to others, and no socket is open to them: see --control-group")
        if not settings.health_path:
            logger.warning(
                "no --health-path: a release that imports and starts, but answers 500, would be put into service"
            )
