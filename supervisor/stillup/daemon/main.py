"""Bringing the supervisor up and down: process, assembly, start-up, run; and what is closed in which order."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from stillup import __version__
from stillup.core import hang
from stillup.core.availability import agent_word
from stillup.core.commands import Exit
from stillup.core.crossing import unmoved
from stillup.daemon import preflight, reexec, startup
from stillup.daemon.assembly import Assembly, Opened, WorkerSide, assemble, assemble_worker_side, open_service
from stillup.daemon.control.agent_server import AgentServer
from stillup.daemon.control.control_server import ControlServer
from stillup.daemon.loop import reaper, watchdog
from stillup.daemon.loop.heartbeat import watch_heartbeats
from stillup.daemon.loop.job_control import JobControl
from stillup.daemon.loop.path_watch import watch_paths
from stillup.daemon.loop.source_watch import watch
from stillup.daemon.loop.stop_progress import tell_progress
from stillup.daemon.settings.config import Settings
from stillup.daemon.settings.config_reader import ConfigReader
from stillup.daemon.state.console import Console, set_up_logging
from stillup.daemon.state.disk import in_thread
from stillup.errors import Refused
from stillup.host import blocking_close, descriptors, log_file, service_manager, signal_stack
from stillup.host.descriptors import ensure_standard, ensure_write_only
from stillup.host.processes import HANDLED, block_handled, close_on_exec_all, raise_descriptor_limit
from stillup.wire import figure_cells
from stillup.wire.address import as_url, every_interface
from stillup.wire.api_operation import ApiSocket
from stillup.wire.record_format import ReexecState
from stillup.wire.runtime_paths import CONTROL, EVENTS, RECORD

logger = logging.getLogger("stillup")

_LEVELS = {"trace": logging.DEBUG}


def run(settings: Settings, reader: ConfigReader | None = None) -> int:
    """Be the supervisor until the service ends; the exit code.

    Args:
        settings: what is to be served, and how.
        reader: reads the configuration again at each reload.

    Raises:
        Refused: the service cannot start as it was asked for. Nothing is left behind.
    """
    # What was imported stays: none of the collector's passes, which stop the loop, goes through it.
    gc.freeze()
    gc.enable()
    preflight.check_platform()
    if (trial := reexec.received(reexec.TRIAL)) is not None:
        return preflight.try_out(settings, trial)
    reexec_state = reexec.received(reexec.REEXEC)
    ensure_standard()
    ensure_write_only()
    # So that a supervisor which the manager's watchdog ends (SIGABRT) says where it was stuck.
    faulthandler.enable(2)
    signal_stack.widen()
    close_on_exec_all()
    raise_descriptor_limit()
    # Inherited as ignored it would keep us from learning how a worker ended (waitid(2)).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    blocking_close.let_interrupt()
    # Each of these would kill us until its handler is in place, which is when the loop runs.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    with contextlib.ExitStack() as output:
        trouble = output.enter_context(_log_file(settings, reexec_state))
        console = Console()
        output.callback(console.close)
        level = _LEVELS.get(settings.log.level) or logging.getLevelNamesMapping()[settings.log.level.upper()]
        set_up_logging(console, level, settings.log.form, color=settings.log.color)
        if trouble:
            logger.error("%s; the log goes on where it was: mend that, and USR1 opens it", trouble)
        try:
            with contextlib.ExitStack() as stack:
                try:
                    opened = open_service(settings, console, stack, reexec_state, reader)
                except OSError as error:
                    raise Refused(f"cannot start: {error}", code="unavailable") from error
                return asyncio.run(_run(opened))
        except Refused as refusal:
            if settings.log.file:  # else what the caller prints is all there is to be read
                logger.error("%s", refusal)  # noqa: TRY400 - no bug
            raise


@contextlib.contextmanager
def _log_file(settings: Settings, reexec_state: ReexecState | None) -> Iterator[str]:
    """Let stdout and stderr lead to the log file, if there is one.

    Where workers live on with us in the place of another program, and it cannot be opened, they stay as they were: why
    is yielded, else nothing.

    Raises:
        Refused: it cannot be opened.
    """
    if not settings.log.file:
        yield ""
        return
    try:
        file = log_file.open_log(settings.log.file, settings.rights.worker)
    except Refused as refusal:
        if reexec_state is None:
            raise
        yield str(refusal)
        return
    before = [descriptors.duplicate(fd) for fd in (1, 2)]
    log_file.write_to(file)
    try:
        yield ""
    finally:
        for fd, target in zip(before, (1, 2), strict=True):
            descriptors.put_in_place(fd, target)


async def _run(opened: Opened) -> int:
    """Serve until the fleet has come to its end; the exit code.

    Raises:
        Refused: what another supervisor left behind cannot be gone on with.
    """
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(initializer=block_handled))
    worker_side = assemble_worker_side(opened)
    service: Assembly | None = None
    servers: list[ControlServer | AgentServer] = []
    try:
        beginning = await startup.begin(opened, worker_side)
        service = assemble(opened, worker_side, beginning.fleet)
        for event in beginning.events:
            worker_side.queue.submit(event)
        for serial, process in beginning.living.items():
            generation = beginning.fleet.workers[serial].generation
            service.effects.adopt(serial, process, beginning.fleet.generations[generation].release)
        if beginning.hook is not None and (hook := beginning.fleet.hook_under_way) is not None:
            service.effects.adopt_hook(hook.id, beginning.hook)
        worker_side.admission.admits.set()
        _greet(opened)
        _begin_tasks(service)
        code = await _serve(service, servers)
        await service.effects.end_groups()
        await service.history.settle()
        await worker_side.figures.remove()
        # The last worker has gone: there is nothing that anybody could take over.
        opened.files.callback(opened.runtime.remove, RECORD, EVENTS)
        return code
    finally:
        await _close(opened, worker_side, service, servers)


def _begin_tasks(service: Assembly) -> None:
    """Let go on beside the engine what does, and take signals."""
    opened, worker_side, signals = service.opened, service.worker_side, service.opened.signals
    settings, queue = opened.settings, worker_side.queue
    signals.serve(service.engine, service.disk, service.reexec.ask, partial(_reopen, service))
    signals.begin(service.history.run())
    signals.begin(tell_progress(service.engine, had_terminal=signals.had_terminal))
    signals.begin(worker_side.figures.keep())
    signals.begin(service.series.run())
    if settings.reload is not None:
        signals.begin(watch(settings.reload, signals.reload))
    if settings.reload_on:
        signals.begin(watch_paths(settings.reload_on, signals.reload))
    if settings.worker.has_terminal:
        JobControl(service.effects.with_terminal)
    # Whatever --hang-timeout is: a reload may bring another.
    catch_up = worker_side.channels.catch_up

    def interval() -> float:
        return hang.report_interval(service.engine.fleet.policy.hang_timeout)

    signals.begin(watch_heartbeats(interval, catch_up, queue.submit, lambda: descriptors.writable((1, 2))))
    if (limit := service_manager.watchdog()) is not None:
        signals.begin(watchdog.feed(limit, queue.turn, opened.notifier.alive))
    signals.take()
    signals.begin(reaper.reap())  # now that those who live are held


async def _reopen(service: Assembly) -> None:
    """Open the log file anew, here and in all workers: it was renamed.

    Raises:
        Refused: it cannot be opened; all goes on in the one that was.
    """
    settings = service.opened.settings
    if not settings.log.file:
        logger.info("SIGUSR1: no log file is open (--log-file); there is nothing to reopen")
        return
    log_file.write_to(await in_thread(log_file.open_log, settings.log.file, settings.rights.worker))
    service.worker_side.channels.reopened()
    logger.info("SIGUSR1: %s is reopened", settings.log.file)


def _answer_callers(service: Assembly, servers: list[ControlServer | AgentServer]) -> dict[ApiSocket, ControlServer]:
    """Begin to serve the control API at all its sockets; each is among ``servers`` as soon as it is there."""
    found = {}
    for name, sock in service.opened.sockets.control_sockets().items():
        app = service.api.at(name)
        found[name] = server = ControlServer(
            sock.dup(),
            service.trace.traced(app) if name is ApiSocket.CONTROL else app,
            service.identities.meet,
            has_right=partial(service.api.has_right, name),
            is_worker=service.identities.is_worker,
            turned_away=partial(service.worker_side.figures.more, figure_cells.TURNED_AWAY),
            name=name,
        )
        servers.append(server)
    return found


async def _serve(service: Assembly, servers: list[ControlServer | AgentServer]) -> int:
    """Answer callers and run the engine; the exit code. Does not return if the program is replaced."""
    opened, worker_side, signals = service.opened, service.worker_side, service.opened.signals
    while True:
        api_servers = _answer_callers(service, servers)
        if (agent := opened.sockets.agent) is not None:
            servers.append(AgentServer(agent.dup(), lambda: agent_word(service.engine.fleet)))
        signals.begin(service.reexec.take_back(partial(_serve_one, api_servers)))
        last = await service.engine.run(service.effects)
        if isinstance(last, Exit):
            worker_side.queue.end()
            return last.code
        # What comes from here on is for the program that comes, too.
        service.reexec.leave()
        await signals.block()
        service.trace.end()
        await service.history.settle()
        service.history.end()
        await _close_servers(servers)
        await worker_side.figures.written()
        if not worker_side.queue.asked_to_stop:
            signals.hand_on()
            opened.console.flush()
            service.reexec.replace()  # which returns if it could not
        service.history.go_on()
        signals.take()


def _serve_one(servers: Mapping[ApiSocket, ControlServer], name: str, sock: socket.socket) -> None:
    """Serve a connection that was taken for us at the socket of that name."""
    server = servers.get(ApiSocket(name))
    if server is not None:
        server.serve(sock)
    else:  # one that the new configuration has not
        sock.close()


async def _close(
    opened: Opened, worker_side: WorkerSide, service: Assembly | None, servers: list[ControlServer | AgentServer]
) -> None:
    """Close everything that the loop has to do with; the rest is closed by the stack of ``open_service``."""
    opened.signals.end()
    worker_side.record_writer.close()
    worker_side.figures.close()
    opened.files.close()
    worker_side.admission.close()
    if service is not None:
        service.effects.close()
        service.trace.end()
        service.history.close()
        await _close_servers(servers)
        service.audit.close()
        service.identities.close()


async def _close_servers(servers: list[ControlServer | AgentServer]) -> None:
    """At once: each gives its last answers some time."""
    await asyncio.gather(*(server.close() for server in servers))
    servers.clear()


def _greet(opened: Opened) -> None:
    settings = opened.settings
    every = {bind.name: f" ({said})" for bind in settings.binds if (said := every_interface(bind.address))}
    scheme = "https" if settings.options.get("ssl_certfile") or settings.options.get("ssl_keyfile") else "http"
    where = ", ".join(f"{as_url(info.address, scheme)}{every.get(info.name, '')}" for info in opened.custody.infos)
    logger.info("stillup %s: %s (pid %d) listens on %s", __version__, settings.name, os.getpid(), where)
    logger.info("control: curl --unix-socket %s http://localhost/v1/status", opened.runtime.file(CONTROL))
    if address := opened.sockets.admin_address():
        logger.info("metrics and probes: http://%s/metrics", address)
    if address := opened.sockets.agent_address():
        logger.info("agent checks: %s", address)
    if stays := unmoved(settings.options):
        logger.info("with %s connections stay where they are: a reload closes those that are idle", " and ".join(stays))
    if settings.rights.closed_to_all:
        logger.warning("roles are given to others, and no socket is open to them: see --control-group")
    for bind in settings.doubtful_binds:
        logger.warning(
            "anybody can connect to %s, and X-Forwarded-* is believed from root and uid %d alone: let in a proxy's "
            "group, which is believed then (unix:/path,mode=0660,group=GROUP), or say --forwarded-allow-ips '*'",
            bind.address,
            os.geteuid(),
        )
    if not settings.worker.health_path:
        logger.warning(
            "no --health-path: a release that imports and starts, but answers 500, would be put into service"
        )
