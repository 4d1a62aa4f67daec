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
import signal
import sys
import threading
from functools import partial
from typing import NoReturn

from uvicorn.config import Config

from stillup.asgi.uvicorn_config import loop_factory, make_config
from stillup.core.worker_figures import WorkerFigures
from stillup.errors import PeerError
from stillup.host import descriptors, signal_stack
from stillup.host.processes import DUMP_STACKS, HANDLED, raise_descriptor_limit
from stillup.wire.handoff_messages import Report, boot_failed
from stillup.wire.template_messages import VARIABLE
from stillup.worker import debugging, fresh_sources, lasting_threads, template, worker_log
from stillup.worker.server import Server
from stillup.worker.supervisor_channel import SupervisorChannel, take_over
from stillup.worker.worker_log import WorkerLog

logger = logging.getLogger("uvicorn.error")


def main() -> int:
    """Run one worker, or a template of them; the exit code."""
    if VARIABLE in os.environ:
        template.serve()
    else:
        gc.freeze()
        gc.unfreeze()  # all is in the oldest generation, without a pass
    gc.enable()
    # The path stays: by it the supervisor knows whatever the app starts, which may not use its control socket.
    path, nonce = os.environ.get("STILLUP_HANDOFF", ""), os.environ.pop("STILLUP_NONCE", "")
    if not path or not nonce:
        sys.stderr.write("a worker is started by 'stillup run', not by hand\n")
        return 2
    atexit.register(_let_out)  # first of all, so that it comes last
    # Written by the handler itself, in C: it works while the interpreter is busy or waits for a system call.
    faulthandler.register(DUMP_STACKS, all_threads=True)
    signal_stack.widen()
    _take_signals()
    raise_descriptor_limit()  # the supervisor's may have been lowered since
    descriptors.make_room()
    try:
        supervisor = take_over(path, nonce)
    except (PeerError, OSError) as error:
        sys.stderr.write(f"stillup worker: no hand-off: {error}\n")
        return 1
    # Says where a boot hangs, just before the supervisor ends it.
    faulthandler.dump_traceback_later(supervisor.welcome.boot_timeout * 0.95)
    return _serve(supervisor)


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


def _take_signals() -> None:
    """Only SIGTERM is ours; the rest is for the supervisor, though a terminal or an operator may send it to all.

    They get a handler that does nothing rather than SIG_IGN, which the app's own children would inherit.
    """
    for number in HANDLED - {signal.SIGTERM}:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def _serve(supervisor: SupervisorChannel) -> int:
    welcome = supervisor.welcome
    color = bool(welcome.options.get("use_colors"))
    log = WorkerLog(welcome.settings, f"{welcome.generation}.{welcome.worker}", color=color)
    if welcome.settings.reload_dirs:
        fresh_sources.install(welcome.settings.reload_dirs)
    if welcome.settings.has_terminal:
        debugging.install(supervisor.outputs)
    try:
        os.chdir(welcome.directory)
        sys.path.insert(0, welcome.app_dir)
        config = make_config(welcome.app, welcome.options, log.make_config())
        make_loop = loop_factory(config)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - uvicorn raises what it likes for a wrong option
        log.show_error(error)
        supervisor.say_now(boot_failed("options", f"{type(error).__name__}: {error}"))
        supervisor.close()
        return 1
    with asyncio.Runner(loop_factory=make_loop) as runner:
        code = runner.run(_run(supervisor, config, log))
    if threading.active_count() > 1:
        lasting_threads.tell_of_them(partial(_tell_of_threads, supervisor))
    return code


def _tell_of_threads(supervisor: SupervisorChannel, threads: str) -> None:
    logger.warning("finished, and kept by threads of the app that are no daemons: %s", threads)
    supervisor.say_now(Report(WorkerFigures(threads=threads)))


async def _run(supervisor: SupervisorChannel, config: Config, log: WorkerLog) -> int:
    return await Server(supervisor, config, log).run()


def _leave(code: int) -> NoReturn:
    """End as a program does that returns: wait for threads that are no daemons, then run what is registered (atexit).

    Only what the interpreter does after that is left out. It takes every object apart, for a tenth of a second of the
    processors that those need who serve.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - what Py_FinalizeEx calls
    atexit._run_exitfuncs()  # noqa: SLF001 - likewise
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
