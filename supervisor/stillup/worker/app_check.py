"""``python -P -m stillup.worker.app_check``: loads an app as a worker does, and says what is wrong with it.

With a health path it is started, asked and shut down, too. ``stillup check`` starts this as a worker is started: with
the release's environment, and as the workers' user. What is to be loaded comes in JSON on stdin. Exit 0 if all went
well; else 1, and the last line of stderr says why not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import Any

import msgspec

from stillup.asgi.site import Site
from stillup.asgi.tracebacks import show_error
from stillup.asgi.uvicorn_config import loop_factory, make_config
from stillup.core.worker_settings import WorkerSettings
from stillup.host.processes import HANDLED
from stillup.worker import health_probe
from stillup.worker.app_state import Stillup, be_current
from stillup.worker.boot import show_unhealthy
from stillup.worker.boot_watch import BootWatch
from stillup.worker.health_hints import WSGI
from stillup.worker.import_hint import import_hint
from stillup.worker.retirement import SHUTDOWN_DEADLINE, shut_down
from stillup.worker.template import import_all


class AppToCheck(msgspec.Struct, frozen=True):
    """What is to be loaded, and what it is asked."""

    app: str
    directory: str
    app_dir: str
    options: dict[str, Any]
    settings: WorkerSettings
    seconds: float
    """For all of it."""


def main() -> int:
    """Load it, and perhaps start and ask it; the exit code."""
    told = msgspec.json.decode(sys.stdin.buffer.read(), type=AppToCheck)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    for name, why in import_all(told.settings.warm if told.settings.template else ()).items():
        sys.stdout.write(f"warning: --warm {name}: {why}\n")
    try:
        os.chdir(told.directory)
        sys.path.insert(0, told.app_dir)
        site = Site(make_config(told.app, told.options))
        site.load()
    except SystemExit:
        return _wrong("the app could not be loaded")
    except BaseException as error:  # noqa: BLE001 - an app may raise anything
        show_error(error)
        return _wrong(f"the app could not be loaded: {type(error).__name__}: {error}{import_hint(error)}")
    if site.is_wsgi:
        return _wrong(f"the app could not be loaded: {WSGI}")
    if not told.settings.health_path:
        return 0
    with asyncio.Runner(loop_factory=loop_factory(site.config)) as runner:
        return runner.run(_ask(site, told))


async def _ask(site: Site, told: AppToCheck) -> int:
    """Start the app and ask its health; the exit code."""
    loop = asyncio.get_running_loop()
    due = loop.time() + told.seconds
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # how an app starts and ends is no finding
    lifespan = site.lifespan
    lifespan.state["stillup"] = be_current(Stillup(0, 0))  # it leads never: a service may run, and have a leader
    with BootWatch(due, told.seconds, shows_waits=True):
        await lifespan.startup()
    if lifespan.should_exit:
        return _wrong("the app does not start: its lifespan startup failed")
    why = ""
    try:
        with BootWatch(due, told.seconds, shows_waits=False):
            await health_probe.probe(site.config.loaded_app, told.settings, lifespan.state, due - loop.time())
    except health_probe.UnhealthyError as error:
        show_unhealthy(error)
        why = f"the app is not healthy: {error}"
    await shut_down(site, SHUTDOWN_DEADLINE)
    return _wrong(why) if why else 0


def _wrong(why: str) -> int:
    sys.stderr.write(" ".join(f"{why}\n".splitlines()) + "\n")
    sys.stderr.flush()
    return 1


if __name__ == "__main__":
    sys.exit(main())
