"""How a worker boots: the app is imported, started up and probed; then the supervisor is told READY, or why not."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import sys
from collections.abc import Callable
from typing import Final

from stillup.asgi.site import Site
from stillup.asgi.tracebacks import show_error, show_waits
from stillup.wire.handoff_messages import ProbeAnswer, Ready, boot_failed
from stillup.worker import app_import, health_probe
from stillup.worker.app_state import Stillup
from stillup.worker.boot_watch import BootWatch
from stillup.worker.health_hints import WSGI
from stillup.worker.supervisor_channel import SupervisorChannel
from stillup.worker.worker_log import WorkerLog

PROBE_MARGIN: Final = 0.5
"""Seconds before the boot deadline at which the probe gives up, so that its reason arrives before the deadline's."""


class Boot:
    """One boot of one app."""

    def __init__(self, supervisor: SupervisorChannel, site: Site, app: Stillup, log: WorkerLog) -> None:
        self._supervisor = supervisor
        self._site = site
        self._app = app
        self._log = log
        self.started = False
        """Whether the app has started, and so is owed a shutdown."""

    async def run(self, terminate: Callable[[], None], *, has_reserve: bool) -> bool:
        """Come to READY; False when the app cannot serve, which the supervisor has been told.

        Args:
            terminate: what SIGTERM calls, from when the app is imported on.
            has_reserve: whether there are descriptors enough to take connections over.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not has_reserve:
            # It would serve, but what others hand over would wait for ever.
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return self._failed("descriptors", f"too few to take connections over: RLIMIT_NOFILE is {limit}")
        if not self._load():
            return False
        # Until here SIGTERM ends the process where it stands, even inside an import that never returns.
        loop.add_signal_handler(signal.SIGTERM, terminate)
        self._app.shutdown.install()
        timeout = self._supervisor.welcome.boot_timeout
        due = began + timeout
        lifespan = self._site.lifespan
        lifespan.state["stillup"] = self._app
        with BootWatch(due, timeout, shows_waits=True):
            await lifespan.startup()
        if lifespan.should_exit:
            return self._failed("lifespan", "the app's startup failed")
        self.started = True
        try:
            with BootWatch(due, timeout, shows_waits=False):
                seen = await self._probe(due - loop.time())
        except health_probe.UnhealthyError as error:
            show_unhealthy(error)
            return self._failed("probe", str(error))
        _flush()
        self._supervisor.restore_output()
        self._log.ready()
        await self._supervisor.tell(Ready(seen))
        return True

    def _load(self) -> bool:
        if why := app_import.why_not(self._site.load, self._log):
            return self._failed("import", why)
        if self._site.is_wsgi:
            return self._failed("import", WSGI)
        return True

    def _failed(self, stage: str, message: str) -> bool:
        _flush()
        self._supervisor.say_now(boot_failed(stage, message))
        return False

    async def _probe(self, seconds: float) -> str:
        settings = self._supervisor.welcome.settings
        if not settings.health_path:
            return ""
        patience = max(seconds - PROBE_MARGIN, seconds / 2)
        app, state = self._site.config.loaded_app, self._site.lifespan.state
        return await health_probe.probe(app, settings, state, patience, self._tell_answer)

    def _tell_answer(self, status: int) -> None:
        if self._supervisor.welcome.settings.hears_probe:
            self._supervisor.say_now(ProbeAnswer(status))


def show_unhealthy(error: health_probe.UnhealthyError) -> None:
    """Print what the app has to say of why it is not healthy: its traceback, or where it waits.

    To be called before the event loop goes on.
    """
    if isinstance(error, health_probe.UnansweredError):
        show_waits()
    if error.__cause__ is not None:
        show_error(error.__cause__)


def _flush() -> None:
    """Let out what was printed, and make the streams show each line as it comes.

    A pipe made them block-buffered for good, but they are to become what the supervisor has. The app may have put
    something of its own in their place, and is free to.
    """
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.flush()  # type: ignore[union-attr]
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
