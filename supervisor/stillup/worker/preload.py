"""A preloader: a worker that has imported its app, and then forks the workers of its generation (``--preload``).

1. It is started as a worker is, or forked from a template, with ``wire.template_messages.PRELOADER`` in its environment
   and the supervisor's socket as its stdin. It is no worker: it serves nothing, has no slot, and starts no app up.
2. The app is imported as in a worker: in its directory, with its log, while an event loop runs, which ends then.
3. A worker that it forks has what the import made. What a forked process cannot have (``host.fork_hazards``), what
   waits in the loop that has ended, and an app that has asked which worker it is, are reasons to fork none: they are
   told, and each worker imports the app by itself.
4. An import that fails is told as a worker would tell it. One that never ends is ended by the supervisor, or with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import os
import socket
import sys
import weakref
from typing import NoReturn

from stillup.asgi.uvicorn_config import import_app
from stillup.errors import PeerError
from stillup.host import descriptors, fork_hazards, forking
from stillup.wire import handoff_messages
from stillup.wire.handoff_messages import BootFailed, Welcome, boot_failed
from stillup.wire.template_messages import PACKET_LIMIT, PRELOADER, Loaded, Prepared, decode_load, encode
from stillup.worker import app_import, app_state, own_signals, template
from stillup.worker.configured_app import ConfiguredApp, configure, make_log
from stillup.worker.worker_log import WorkerLog

NAME = "preload"
"""What the log calls it, behind its generation."""


def serve() -> ConfiguredApp:
    """Import the app, then fork workers for as long as the supervisor asks; returns in these alone."""
    del os.environ[PRELOADER]
    sock = template.take_socket()
    own_signals.take()
    _say(sock, encode(Prepared(1, {})))
    packet, _ = descriptors.receive(sock, PACKET_LIMIT, 0)
    if not packet:
        os._exit(0)
    forking.end_with_parent()  # which is the supervisor by now, not the process between
    try:
        welcome = decode_load(packet).workers
    except PeerError as error:
        _end_after(sock, encode(Loaded([f"the stillup of its interpreter, which is another ({error})"])))
    known = fork_hazards.open_descriptors()
    faulthandler.dump_traceback_later(welcome.boot_timeout * 0.95)  # says where it hangs, before it is ended
    configured, said = _import(welcome, make_log(welcome, f"{welcome.generation}.{NAME}"))
    faulthandler.cancel_dump_traceback_later()
    if isinstance(said, Loaded):
        gc.collect()
        forking.count_threads()  # which ends those that know of forks
        said = Loaded(said.unfit + fork_hazards.hazards(known))
    gc.freeze()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # the app may have put anything there
            stream.flush()
    if configured is None or not isinstance(said, Loaded) or said.unfit:
        _end_after(sock, encode(said) if isinstance(said, Loaded) else handoff_messages.encode(said))
    _say(sock, encode(said))
    template.fork_on_request(sock, {})
    return configured


def _end_after(sock: socket.socket, packet: bytes) -> NoReturn:
    """Say that, and be ended by the supervisor when it has heard it: it would learn of an end by itself first."""
    _say(sock, packet)
    sock.recv(1)
    os._exit(1)


def _import(welcome: Welcome, log: WorkerLog) -> tuple[ConfiguredApp | None, Loaded | BootFailed]:
    """Import the app; what became of it. Blocks for as long as its code does."""
    try:
        configured = configure(welcome, log)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - uvicorn raises what it likes for a wrong option
        log.show_error(error)
        return None, boot_failed("options", f"{type(error).__name__}: {error}")
    with asyncio.Runner(loop_factory=configured.make_loop) as runner:
        why, unfit = runner.run(_import_in_loop(configured))
        loop = weakref.ref(runner.get_loop())
    if why:
        return None, boot_failed("import", why)
    del runner
    gc.collect()
    if loop() is not None:
        unfit.append("something that keeps the event loop of the import")
    if app_state.was_asked():
        unfit.append("current() was called, which is another in each worker")
    return configured, Loaded(unfit)


async def _import_in_loop(configured: ConfiguredApp) -> tuple[str, list[str]]:
    """Why the app could not be imported, or nothing; and the tasks that its import has begun."""
    why = app_import.why_not(lambda: import_app(configured.config), configured.log)
    begun = asyncio.all_tasks() - {asyncio.current_task()}
    return why, [f"the task {task.get_name()} of the import ({task.get_coro()!r})" for task in begun]


def _say(sock: socket.socket, packet: bytes) -> None:
    """Tell the supervisor; if there is none any more, this process ends."""
    try:
        descriptors.send(sock, packet)
    except OSError:
        os._exit(1)
