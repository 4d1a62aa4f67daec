"""``python -P -m stillup.worker``: started by the supervisor, by nobody else."""

from __future__ import annotations

import gc

# While all of this is imported, which stays, the collector would go through it again and again.
if __name__ == "__main__":
    gc.disable()

import asyncio
import atexit
import faulthandler
import logging
import os
import sys
import threading
from functools import partial

from stillup.core.worker_figures import WorkerFigures
from stillup.errors import PeerError
from stillup.host import descriptors, process_end, signal_stack
from stillup.host.processes import raise_descriptor_limit
from stillup.wire.handoff_messages import Report, boot_failed
from stillup.wire.template_messages import PRELOADER, VARIABLE
from stillup.worker import debugging, fresh_sources, lasting_threads, own_signals, preload, template, worker_log
from stillup.worker.configured_app import ConfiguredApp, configure, make_log
from stillup.worker.server import Server
from stillup.worker.supervisor_channel import SupervisorChannel, take_over

logger = logging.getLogger("uvicorn.error")


def main() -> int:
    """Run one worker, or what forks them: a template, a preloader; the exit code."""
    if VARIABLE in os.environ:
        template.serve()
    else:
        gc.freeze()
        gc.unfreeze()  # all is in the oldest generation, without a pass
    gc.enable()
    preloaded = preload.serve() if PRELOADER in os.environ else None
    # The path stays: by it the supervisor knows whatever the app starts, which may not use its control socket.
    path, nonce = os.environ.get("STILLUP_HANDOFF", ""), os.environ.pop("STILLUP_NONCE", "")
    if not path or not nonce:
        sys.stderr.write("a worker is started by 'stillup run', not by hand\n")
        return 2
    atexit.register(_let_out)  # first of all, so that it comes last
    own_signals.take()
    signal_stack.widen()
    raise_descriptor_limit()  # the supervisor's may have been lowered since
    descriptors.make_room()
    try:
        supervisor = take_over(path, nonce)
    except (PeerError, OSError) as error:
        sys.stderr.write(f"stillup worker: no hand-off: {error}\n")
        return 1
    # Says where a boot hangs, just before the supervisor ends it.
    faulthandler.dump_traceback_later(supervisor.welcome.boot_timeout * 0.95)
    return _serve(supervisor, preloaded)


def _let_out() -> None:
    """Let out what was printed. What nobody reads any more goes nowhere: Python would make exit code 120 of it."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is None:
            continue
        try:
            worker_log.finish()
            stream.flush()
        except OSError:
            descriptors.blind([stream.fileno()])
        except ValueError:  # the app has closed it
            continue


def _serve(supervisor: SupervisorChannel, preloaded: ConfiguredApp | None) -> int:
    """Serve the app, be it imported already; the exit code."""
    name = f"{supervisor.welcome.generation}.{supervisor.welcome.worker}"
    if preloaded is not None:
        preloaded.log.become(name)
    configured = preloaded or _configure(supervisor, name)
    if configured is None:
        return 1
    with asyncio.Runner(loop_factory=configured.make_loop) as runner:
        code = runner.run(_run(supervisor, configured))
    if threading.active_count() > 1:
        lasting_threads.tell_of_them(partial(_tell_of_threads, supervisor))
    return code


def _configure(supervisor: SupervisorChannel, name: str) -> ConfiguredApp | None:
    """Configure the app; None if that cannot be, which the supervisor has been told."""
    welcome = supervisor.welcome
    log = make_log(welcome, name)
    if welcome.settings.reload_dirs:
        fresh_sources.install(welcome.settings.reload_dirs)
    if welcome.settings.has_terminal:
        debugging.install(supervisor.outputs)
    try:
        return configure(welcome, log)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - uvicorn raises what it likes for a wrong option
        log.show_error(error)
        supervisor.say_now(boot_failed("options", f"{type(error).__name__}: {error}"))
        supervisor.close()
        return None


def _tell_of_threads(supervisor: SupervisorChannel, threads: str) -> None:
    logger.warning("finished, and kept by threads of the app that are no daemons: %s", threads)
    supervisor.say_now(Report(WorkerFigures(threads=threads)))


async def _run(supervisor: SupervisorChannel, configured: ConfiguredApp) -> int:
    return await Server(supervisor, configured.config, configured.log).run()


if __name__ == "__main__":
    process_end.leave(main())
