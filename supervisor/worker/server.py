"""A worker's life: boot, be READY, accept when told, drain when told, leave."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import random
import signal
import socket
import sys
import time

from uvicorn.config import Config

from supervisor.asgi.acceptor import Acceptor
from supervisor.asgi.borrowed import Site
from supervisor.asgi.tracebacks import show_error
from supervisor.errors import PeerError
from supervisor.host import memory
from supervisor.wire.handoff import Accept, BootFailed, Drain, FromWorker, Hurry, Ready, Report, Serving
from supervisor.worker import connections, probe, wear
from supervisor.worker.session import Session
from supervisor.worker.state import Stillup

logger = logging.getLogger("uvicorn.error")

BEAT = 1.0
"""Seconds between two reports; the default headers' date is renewed with each."""
PROBE_MARGIN = 0.5
"""Seconds before the boot deadline at which the probe gives up, so that its reason arrives before the deadline's."""
SHUTDOWN_DEADLINE = 5.0
"""Seconds that the app's lifespan shutdown gets at least."""


class Server:
    """Runs one app on the listeners of one session."""

    def __init__(self, session: Session, config: Config) -> None:
        self._session = session
        self._changed = asyncio.Event()
        self._site = Site(config, changed=self._changed.set)
        self._stillup = Stillup(session.welcome.generation, session.welcome.worker)
        self._acceptors: list[Acceptor] = []
        self._drain: connections.Drain | None = None
        self._leaving = asyncio.Event()
        self._began = time.monotonic()
        self._wear = wear.draw(
            random.SystemRandom(),
            requests=config.limit_max_requests,
            requests_jitter=config.limit_max_requests_jitter,
            age=session.welcome.max_age,
            rss=session.welcome.max_rss,
        )
        self._terminations = 0
        self._started = False
        """Whether the app has started, and so is owed a shutdown."""

    async def run(self) -> int:
        """Live; the exit code."""
        loop = asyncio.get_running_loop()
        self._booting = booting = loop.create_task(self._boot())
        conversation = loop.create_task(self._converse())
        beat = None
        try:
            try:
                booted = await booting
            except asyncio.CancelledError:
                booted = False  # told to leave before it was READY
            faulthandler.cancel_dump_traceback_later()
            if not booted:
                await self._shut_down(SHUTDOWN_DEADLINE)
                return 0 if booting.cancelled() else 1
            beat = loop.create_task(self._beat())
            await self._leaving.wait()
            await self._leave()
        finally:
            conversation.cancel()
            if beat is not None:
                beat.cancel()
            self._session.close()
        return 0

    # Boot

    async def _boot(self) -> bool:
        """Come to READY; False when the app cannot serve, which the supervisor has been told."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not self._load():
            return False
        # Until here SIGTERM ends the process where it stands, even inside an import that never returns.
        loop.add_signal_handler(signal.SIGTERM, self._terminate)
        lifespan = self._site.lifespan
        lifespan.state["stillup"] = self._stillup
        await lifespan.startup()
        if lifespan.should_exit:
            return self._failed("lifespan", "the app's startup failed")
        self._started = True
        try:
            seen = await self._probe(self._session.welcome.boot_timeout - (loop.time() - began))
        except probe.UnhealthyError as error:
            return self._failed("probe", str(error))
        _flush()
        self._session.restore_output()
        await self._tell(Ready(seen))
        return True

    def _load(self) -> bool:
        try:
            self._site.load()
        except SystemExit:
            return self._failed("import", "the app could not be loaded")
        except BaseException as error:  # noqa: BLE001 - an app may raise anything
            show_error(error)
            return self._failed("import", f"{type(error).__name__}: {error}")
        return True

    def _failed(self, stage: str, message: str) -> bool:
        _flush()
        self._session.say_now(BootFailed(stage, message))
        return False

    async def _probe(self, seconds: float) -> str:
        welcome = self._session.welcome
        if not welcome.health_path:
            return ""
        patience = max(seconds - PROBE_MARGIN, seconds / 2)
        lifespan = self._site.lifespan
        return await probe.probe(
            self._site.config.loaded_app, welcome.health_path, welcome.health_host, lifespan.state, patience
        )

    # The supervisor's word

    async def _converse(self) -> None:
        try:
            while (message := await self._session.hear()) is not None:
                match message:
                    case Accept() if self._drain is None:
                        await self._accept()
                    case Accept():
                        pass  # a SIGTERM from elsewhere came first
                    case Drain(timeout, final):
                        self._begin_drain(timeout, final=final)
                    case Hurry():
                        if self._drain is not None:
                            self._drain.hurry()
                    case _:
                        raise PeerError(f"'{type(message).__name__}' out of turn")
        except PeerError as error:
            logger.error("the supervisor broke the hand-off protocol: %s", error)  # noqa: TRY400 - no bug of ours
        except Exception:
            logger.exception("the conversation with the supervisor failed")
        if not self._booting.done():
            self._booting.cancel()
            return
        if self._drain is None:
            logger.warning("without a supervisor: finishing what is here, then leaving")
        self._begin_drain(self._session.welcome.drain_timeout, final=True)

    async def _accept(self) -> None:
        app_state = self._site.lifespan.state
        for _, listener in self._session.listeners:
            unix = listener.family == socket.AF_UNIX

            def protocol(_: socket.socket, unix: bool = unix) -> asyncio.Protocol:  # noqa: FBT001 - bound early
                return self._site.protocol(app_state, unix=unix)

            acceptor = Acceptor(listener, protocol, tls=self._site.config.ssl)
            acceptor.start()
            self._acceptors.append(acceptor)
        await self._tell(Serving())

    async def _tell(self, message: FromWorker) -> None:
        with contextlib.suppress(OSError):  # a supervisor that is gone is noticed where we listen to it
            await self._session.say(message)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            self._site.refresh_headers()
            requests = self._site.state.total_requests
            await self._tell(Report(connections.count(self._site), requests, self._worn(requests)))

    def _worn(self, requests: int) -> str:
        rss = 0
        with contextlib.suppress(OSError):  # out of descriptors, perhaps; the next beat looks again
            rss = memory.resident()
        return self._wear.why(requests=requests, age=time.monotonic() - self._began, rss=rss)

    # Leaving

    def _terminate(self) -> None:
        """SIGTERM: give up booting; or drain; a second one ends at once.

        The first is no more than the word to drain, also for a worker that drains already: a service manager may send
        it to every process while the supervisor says the same by the channel.
        """
        self._terminations += 1
        if not self._booting.done():
            self._booting.cancel()
        elif self._drain is None:
            self._begin_drain(self._session.welcome.drain_timeout, final=False)
        elif self._terminations > 1:
            self._drain.cut_short()

    def _begin_drain(self, timeout: float, *, final: bool) -> None:
        if self._drain is None:
            self._drain = connections.Drain(self._site, self._changed, timeout=timeout, final=final)
            self._stillup.draining.begin()
            self._site.announce_close()
            self._leaving.set()
        elif final:
            self._drain.become_final(timeout)

    async def _leave(self) -> None:
        assert self._drain is not None  # noqa: S101 - for the type checker: _leaving is set after it
        ends = asyncio.get_running_loop().time() + self._session.welcome.drain_timeout
        # Reader off first, accepts under way to their end, and only then the connections are asked: none is overlooked.
        await asyncio.gather(*(acceptor.stop(empty=self._drain.final) for acceptor in self._acceptors))
        await self._drain.run()
        await self._shut_down(max(SHUTDOWN_DEADLINE, ends - asyncio.get_running_loop().time()))

    async def _shut_down(self, patience: float) -> None:
        """Let the app end what its startup began."""
        if not self._started:
            return
        try:
            async with asyncio.timeout(patience):
                await self._site.lifespan.shutdown()
        except TimeoutError:
            logger.error("the app's shutdown took longer than %.0f s", patience)  # noqa: TRY400 - the app's, not ours


def _flush() -> None:
    """Let out what was printed, and make the streams show each line as it comes.

    A pipe made them block-buffered for good, but they are to become what the supervisor has. The app may have put
    something of its own in their place, and is free to.
    """
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.flush()  # type: ignore[union-attr]
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
