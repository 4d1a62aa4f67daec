"""``python -P -m supervisor.worker``: started by the supervisor, by nobody else."""

from __future__ import annotations

import asyncio
import atexit
import faulthandler
import os
import signal
import sys

from uvicorn.config import Config

from supervisor.asgi.borrowed import make_config
from supervisor.asgi.tracebacks import show_error
from supervisor.errors import PeerError
from supervisor.host import descriptors, signal_stack
from supervisor.host.processes import DUMP_STACKS, HANDLED, raise_descriptor_limit
from supervisor.wire.handoff import boot_failed
from supervisor.worker.server import Server
from supervisor.worker.session import Session, take_over


def main() -> int:
    """Run one worker; the exit code."""
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
    try:
        session = take_over(path, nonce)
    except (PeerError, OSError) as error:
        sys.stderr.write(f"stillup worker: no hand-off: {error}\n")
        return 1
    # Says where a boot hangs, just before the supervisor ends it.
    faulthandler.dump_traceback_later(session.welcome.boot_timeout * 0.95)
    return _serve(session)


def _let_out() -> None:
    """Let out what was printed. What nobody reads any more goes nowhere: Python would make exit code 120 of it."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is None:
            continue
        try:
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


def _serve(session: Session) -> int:
    welcome = session.welcome
    try:
        os.chdir(welcome.directory)
        sys.path.insert(0, welcome.app_dir)
        config = make_config(welcome.app, welcome.options)
        loop_factory = config.get_loop_factory()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - uvicorn raises what it likes for a wrong option
        show_error(error)
        session.say_now(boot_failed("options", f"{type(error).__name__}: {error}"))
        session.close()
        return 1
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(_run(session, config))


async def _run(session: Session, config: Config) -> int:
    return await Server(session, config).run()


if __name__ == "__main__":
    sys.exit(main())
