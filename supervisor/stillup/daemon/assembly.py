"""Assembly: everything that one run of a service is made of, constructed in three values, each of which never changes.

1. ``Opened``, before the event loop runs: the runtime directory, what is in custody, our own sockets.
2. ``WorkerSide``, in the loop: what speaks with workers, before it is known what the fleet is.
3. ``Assembly``, once the first fleet is known: the engine, and everything that looks at the fleet.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial

import msgspec
from msgspec.structs import asdict

from stillup.core.model import Fleet, Release
from stillup.core.policy import Policy
from stillup.core.states import RolloutState
from stillup.core.values import replace
from stillup.daemon import preflight
from stillup.daemon.control import interim_handover, responses
from stillup.daemon.control.api import Api
from stillup.daemon.control.audit import Audit
from stillup.daemon.control.handlers import Handlers
from stillup.daemon.control.interim_handover import Interim
from stillup.daemon.control.message_trace import Trace
from stillup.daemon.control.peer_identities import Identities
from stillup.daemon.loop.effects import LiveEffects
from stillup.daemon.loop.engine import Engine
from stillup.daemon.loop.event_queue import EventQueue
from stillup.daemon.loop.signals import Signals
from stillup.daemon.reexec import Probes, ProgramReplacement
from stillup.daemon.settings.config import Settings
from stillup.daemon.settings.config_reader import ConfigReader
from stillup.daemon.settings.release_resolver import resolve
from stillup.daemon.state import fd_store, record_writer
from stillup.daemon.state.console import Console
from stillup.daemon.state.custody import Custody
from stillup.daemon.state.disk import Disk, in_thread
from stillup.daemon.state.fd_store import FdStore
from stillup.daemon.state.feed import Feed
from stillup.daemon.state.figure_files import FigureFiles
from stillup.daemon.state.figures_store import Figures
from stillup.daemon.state.history import History
from stillup.daemon.state.listener_changes import ListenerChanges
from stillup.daemon.state.listener_files import ListenerFiles
from stillup.daemon.state.own_sockets import OwnSockets
from stillup.daemon.state.readiness import Readiness
from stillup.daemon.state.record_writer import RecordWriter
from stillup.daemon.state.series_keeper import SeriesKeeper
from stillup.daemon.workers import takeover
from stillup.daemon.workers.admission import Admission
from stillup.daemon.workers.hook_processes import HookProcesses
from stillup.daemon.workers.worker_channels import WorkerChannels
from stillup.daemon.workers.worker_program import worker_program
from stillup.errors import Refused
from stillup.host import own_process, service_manager
from stillup.host.channel import Tap
from stillup.host.runtime_directory import RuntimeDirectory, claim
from stillup.host.service_manager import Notifier
from stillup.wire import figure_cells, fleet_views
from stillup.wire.address import Bind
from stillup.wire.api_operation import ApiSocket
from stillup.wire.api_shapes import SupervisorView
from stillup.wire.handoff_messages import KeepOnly
from stillup.wire.interim_messages import InterimOrders
from stillup.wire.record_format import SCHEMA, Record, ReexecState
from stillup.wire.runtime_paths import HANDOFF, RECORD

logger = logging.getLogger("stillup")


class Opened(msgspec.Struct, frozen=True):
    """What is there before the event loop runs."""

    settings: Settings
    environment: Mapping[str, str]
    """As we were started: a program that replaces this one is to find the same."""
    console: Console
    notifier: Notifier
    signals: Signals
    policy: Policy
    release: Release
    """What is to run."""
    runtime: RuntimeDirectory
    record: Record | None
    """Of the supervisor before this one."""
    left_behind: bool
    """Whether a supervisor before this one has left anything: its workers may live."""
    files: contextlib.ExitStack
    """Removes our files from the runtime directory, and gives that up."""
    store: FdStore
    custody: Custody
    sockets: OwnSockets
    interim: Interim | None
    """Of the program before this one."""
    stop_command: str
    """How the service manager that started us is told to stop us; empty if none did."""
    reader: ConfigReader | None = None
    """Reads the configuration again at each reload."""


class WorkerSide(msgspec.Struct, frozen=True):
    """What speaks with workers. Those who come back give their copies, and wait until ``admission.admits`` is set."""

    queue: EventQueue
    record_writer: RecordWriter
    figures: Figures
    tap: Tap
    channels: WorkerChannels
    admission: Admission


class Assembly(msgspec.Struct, frozen=True):
    """Everything, once the first fleet is known."""

    opened: Opened
    worker_side: WorkerSide
    engine: Engine
    history: History
    trace: Trace
    effects: LiveEffects
    disk: Disk
    reexec: ProgramReplacement
    identities: Identities
    audit: Audit
    series: SeriesKeeper
    api: Api


def open_service(
    settings: Settings,
    console: Console,
    stack: contextlib.ExitStack,
    reexec_state: ReexecState | None,
    reader: ConfigReader | None = None,
) -> Opened:
    """Claim the runtime directory, then bind; or go on with what a program before this one has handed on.

    What is opened here ``stack`` closes.

    Raises:
        Refused: something is in the way.
        OSError: so it is, and only the kernel knows what.
    """
    environment = dict(os.environ)
    policy = replace(settings.policy, parks=fd_store.is_there())
    notifier = Notifier()
    signals = Signals()
    release = resolve(settings)
    path = preflight.runtime_path(settings)
    if reexec_state is not None:
        runtime = RuntimeDirectory(path, reexec_state.lock, reexec_state.record.made_directory)
    else:
        runtime = claim(path, chosen=bool(settings.runtime_dir or os.environ.get("RUNTIME_DIRECTORY")))
    # To be looked for before our own files take their place.
    try:
        record = reexec_state.record if reexec_state is not None else record_writer.read(runtime)
    except Refused:
        runtime.close()
        raise
    if record is not None and record.made_directory:
        runtime = replace(runtime, created=True)
    left_behind = any(os.path.lexists(runtime.file(name)) for name in (RECORD, HANDOFF))
    # The files go before the sockets: a client that sees the end of its connection finds the directory free.
    files = contextlib.ExitStack()
    files.callback(runtime.close)
    stack.callback(files.close)
    if record is not None:
        settings = replace(settings, rights=takeover.admitting(record, settings.rights))
        settings, release = _with_groups_of(record, settings, release, reader)
    passed = fd_store.Passed() if reexec_state is not None else fd_store.sort(service_manager.passed(), settings.binds)
    tried = fd_store.of_record(reexec_state.record) if reexec_state is not None else frozenset()
    store = FdStore(notifier, passed.names, tried)
    custody = Custody(settings.binds, passed.activated, outlived=policy.parks, record=record)
    stack.callback(custody.close)
    names = {known.cookie: known.name for known in record.listeners} if record is not None else {}
    custody.take_back(passed.named(names), passed.queue)
    interim = interim_handover.of_state(reexec_state)
    if interim is not None:
        stack.callback(interim.close)
        if reexec_state is not None and reexec_state.admin_bind != str(settings.rights.admin_bind or ""):
            interim.release(ApiSocket.ADMIN)
    if reexec_state is not None:
        custody.inherit(reexec_state)
    elif not left_behind:
        custody.open(settings.binds, settings.backlog)
    return Opened(
        settings=settings,
        environment=environment,
        console=console,
        notifier=notifier,
        signals=signals,
        policy=policy,
        release=release,
        runtime=runtime,
        record=record,
        left_behind=left_behind,
        files=files,
        store=store,
        custody=custody,
        sockets=OwnSockets(runtime, settings.rights, reexec_state, stack, files),
        reader=reader,
        interim=interim,
        stop_command=service_manager.stop_command(environment),
    )


def _with_groups_of(
    record: Record, settings: Settings, release: Release, reader: ConfigReader | None
) -> tuple[Settings, Release]:
    """Know whom to believe on connections that came by listeners which are not configured any more."""
    groups = record.fleet.serving.release.settings.proxy_gids if record.fleet.serving is not None else {}
    if reader is not None:
        reader.remember(groups)
    worker = replace(settings.worker, proxy_gids={**groups, **settings.worker.proxy_gids})
    return replace(settings, worker=worker), replace(release, settings=worker)


def assemble_worker_side(opened: Opened) -> WorkerSide:
    """Begin to listen to workers."""
    settings = opened.settings
    writer = RecordWriter(opened.runtime, settings.workers, opened.record, drain_timeout=settings.policy.stop_timeout)
    figures = Figures(FigureFiles(opened.runtime))
    queue = EventQueue(writer)
    tap, channels = Tap(), WorkerChannels(queue.submit)
    admission = Admission(
        opened.sockets.handoff,
        opened.custody,
        channels,
        queue.submit,
        queue.ask,
        tap=tap,
        worker_uid=settings.rights.worker_uid,
        figures=figures.descriptors,
        figures_back=figures.came_back,
    )
    return WorkerSide(queue, writer, figures, tap, channels, admission)


def assemble(opened: Opened, worker_side: WorkerSide, fleet: Fleet) -> Assembly:
    """Make the engine with its first fleet, and everything that looks at the fleet or acts on its decisions."""
    settings, rights = opened.settings, opened.settings.rights
    queue, writer, figures = worker_side.queue, worker_side.record_writer, worker_side.figures
    engine = Engine(fleet, queue, writer, figures.changed)
    history = History(opened.runtime)
    trace = Trace(lambda pid: _worker_of(engine.fleet, pid), worker_side.tap)
    held = partial(_hold, opened, writer, engine)
    files = ListenerFiles(opened.custody, settings.backlog, held)
    opened.files.callback(files.close)
    feed = Feed(Readiness(opened.notifier, lambda: engine.fleet), history, files.hear)
    changes = ListenerChanges(
        opened.custody,
        settings.backlog,
        wanted=lambda: engine.fleet.listeners,
        changed=held,
        announce=feed.announce,
        tell=lambda serial, cookies: worker_side.channels.tell(serial, KeepOnly(cookies)),
    )
    hold = partial(_all_held, changes, files)
    effects = LiveEffects(
        submit=queue.submit,
        admission=worker_side.admission,
        channels=worker_side.channels,
        custody=opened.custody,
        console=opened.console,
        feed=feed,
        nonce=writer.nonce,
        program=partial(
            worker_program, title=settings.name, account=rights.worker, handoff_path=opened.runtime.file(HANDOFF)
        ),
        figures=figures,
        hooks=HookProcesses(queue.submit, opened.console, rights.worker, opened.runtime.file(HANDOFF)),
        keep_listeners=changes.keep,
        leave_store=opened.store.leave,
        account=rights.worker,
    )
    disk = Disk(settings, hold, opened.reader, partial(_state_of, engine))
    reexec = ProgramReplacement(
        engine,
        partial(_reexec_state, opened, writer),
        opened.environment,
        partial(_probes, opened, engine),
        opened.interim,
    )
    series = SeriesKeeper(figures, lambda: engine.fleet)
    handlers = Handlers(
        engine,
        disk.resolve,
        disk.look,
        reexec.ask,
        describe=partial(_describe, opened, writer, engine),
        custody=opened.custody,
        trace=trace,
        history=history,
        figures=figures,
        series=series,
        listener_files=files,
        hold=hold,
        binds=settings.binds,
        cordon_status=settings.cordon_status,
    )
    audit = Audit(feed.announce, lambda: history.next, partial(figures.more, figure_cells.DENIED))
    return Assembly(
        opened=opened,
        worker_side=worker_side,
        engine=engine,
        history=history,
        trace=trace,
        effects=effects,
        disk=disk,
        reexec=reexec,
        identities=Identities(lambda: _pids(engine.fleet), opened.runtime.file(HANDOFF), rights.worker_uid),
        audit=audit,
        series=series,
        api=Api(handlers.all, rights.rules, audit, rights.observe_gid),
    )


@contextlib.asynccontextmanager
async def _all_held(changes: ListenerChanges, files: ListenerFiles, binds: Sequence[Bind]) -> AsyncIterator[None]:
    """Have listeners for these, and the files of all that is held, for the rollout that is asked for in here."""
    async with changes.bound(binds), files.put_back():
        yield


async def _hold(opened: Opened, writer: RecordWriter, engine: Engine) -> None:
    """Put on record what is in custody now, and have the service manager keep it, if it is to keep anything."""
    writer.holds(opened.custody.records(), opened.custody.cookies)
    if engine.fleet.policy.parks:
        try:
            await in_thread(opened.store.keep, *opened.custody.descriptors())
        except (OSError, Refused) as error:
            logger.error("systemd does not keep our sockets over a restart: %s", error)  # noqa: TRY400 - no bug


def _state_of(engine: Engine, number: int) -> RolloutState | None:
    """The state of a rollout, if it is known."""
    rollout = engine.fleet.rollout(number)
    return rollout.state if rollout is not None else None


def _describe(opened: Opened, writer: RecordWriter, engine: Engine) -> SupervisorView:
    """What the control API shows of the supervisor itself."""
    policy = engine.fleet.policy  # not that of the start: a reload reads the configuration again
    return SupervisorView(
        **asdict(own_process.measured()),
        name=opened.settings.name,
        reexecs=writer.latest.reexecs,
        listeners=fleet_views.listeners(engine.fleet, opened.custody.keys, opened.custody.infos),
        stop_command=opened.stop_command,
        stop_delay=policy.stop_delay,
        stop_budget=policy.stop_budget,
    )


def _reexec_state(opened: Opened, writer: RecordWriter) -> ReexecState:
    """What a program that replaces this one now would be handed on."""
    latest = writer.latest
    listeners, queue = opened.custody.descriptors()
    return ReexecState(
        schema=SCHEMA,
        record=replace(latest, reexecs=latest.reexecs + 1),
        path=opened.runtime.path,
        lock=opened.runtime.lock,
        listeners=listeners,
        queue=queue,
        **opened.sockets.numbers(),
    )


def _probes(opened: Opened, engine: Engine) -> Probes:
    """Where and how probes are answered now."""
    rights, sockets = opened.settings.rights, opened.sockets.control_sockets()
    observers = rights.rules.letting_view(rights.observe_gid) if rights.observe_gid is not None else rights.rules
    orders = InterimOrders(
        list(sockets),
        {ApiSocket.CONTROL: rights.rules, ApiSocket.OBSERVE: observers},
        os.geteuid(),
        sorted(_pids(engine.fleet)),
        sorted({os.geteuid(), rights.worker_uid}),
        opened.runtime.file(HANDOFF),
    )
    answers = {"/livez": responses.live(), "/readyz": responses.ready(engine.fleet, opened.settings.cordon_status)}
    return Probes(orders, list(sockets.values()), {path: responses.whole(one) for path, one in answers.items()})


def _worker_of(fleet: Fleet, pid: int) -> str:
    """The name of the worker with that pid; empty if there is none."""
    return next((worker.name for worker in fleet.workers.values() if worker.pid == pid), "")


def _pids(fleet: Fleet) -> frozenset[int]:
    """Of workers, and of the hook that runs: neither may use the control sockets."""
    hook = fleet.hook_under_way
    pids = (*(worker.pid for worker in fleet.workers.values()), hook.pid if hook is not None else None)
    return frozenset(pid for pid in pids if pid is not None)
