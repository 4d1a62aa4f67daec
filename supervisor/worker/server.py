"""A worker's life: boot, be READY, accept when told, drain when told, leave."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import random
import resource
import signal
import sys
import time

from uvicorn.config import Config

from supervisor.asgi import borrowed
from supervisor.asgi.acceptor import Acceptor
from supervisor.asgi.borrowed import Site
from supervisor.asgi.resting import Resting
from supervisor.asgi.tracebacks import show_error
from supervisor.core.crossing import PACKET_FOR_ONE, news_waits
from supervisor.errors import PeerError
from supervisor.host import descriptors, memory
from supervisor.host.sources import Adoptions, Arrival, Backlog
from supervisor.wire import figures, handoff
from supervisor.wire.handoff import Accept, Drain, FromWorker, Hurry, Ready, Report, Serving, boot_failed
from supervisor.worker import connections, probe, wear
from supervisor.worker.giving import Giver
from supervisor.worker.lull import Lull
from supervisor.worker.session import Session
from supervisor.worker.state import Stillup

logger = logging.getLogger("uvicorn.error")

BEAT = 1.0
"""Seconds between two reports, if nothing comes up; the default headers' date is renewed with each."""
TERM_PATIENCE = 10.0
"""Seconds that a worker which was sent SIGTERM serves on until its replacement does."""
QUEUE_PATIENCE = 5.0
"""Seconds of a final drain in which the adoption queue is read on for its end."""
ROOM_PATIENCE = 3.0
"""Seconds that a worker at its --limit-concurrency leaves connections in the queue to others."""
RECONNECT_FIRST = 0.05
"""Seconds between the first two attempts to find a supervisor; each later wait is twice as long, up to the next."""
RECONNECT_MOST = handoff.LONGEST_WAIT
PROBE_MARGIN = 0.5
"""Seconds before the boot deadline at which the probe gives up, so that its reason arrives before the deadline's."""
SHUTDOWN_DEADLINE = 5.0
"""Seconds that the app's lifespan shutdown gets at least."""


class Server:
    """Runs one app on the listeners of one session."""

    def __init__(self, session: Session, config: Config) -> None:
        self._session = session
        self._changed = asyncio.Event()
        self._cells = session.figures
        self._site = Site(config, self._cells)
        self._stillup = Stillup(session.welcome.generation, session.welcome.worker)
        self._acceptors: list[Acceptor] = []
        """Of the listeners."""
        self._resting = Resting(self._protocol, config.timeout_keep_alive, self._changed.set)
        # After all else that needs a descriptor: they keep all those that are free, if there are too few.
        self._adoptions = [Adoptions(reader, PACKET_FOR_ONE) for reader in (session.queue.reader, *session.older)]
        """Of our queue first; what other supervisors' workers write to ends when they have left."""
        self._adopters = [
            Acceptor(adoptions, self._adopt, ready=self._may_adopt, ended=self._changed.set)
            for adoptions in self._adoptions
        ]
        self._adopted = 0
        self._lull = Lull()
        self._longest = 0.0
        self._full_since: float | None = None
        self._drain: connections.Drain | None = None
        self._giver: Giver | None = None
        self._packet = 1
        self._parks = False
        """Whether what is given waits in the queue for the workers of a later supervisor."""
        self._final_since: float | None = None
        self._news = asyncio.Event()
        """Set when there is something to report before the next beat."""
        self._asked_to_leave = ""
        self._orphaned = False
        self._leaving = asyncio.Event()
        self._began = time.monotonic()
        self._wear = wear.draw(
            random.SystemRandom(),
            requests=config.limit_max_requests,
            requests_jitter=borrowed.requests_jitter(config),
            age=session.welcome.max_age,
            rss=session.welcome.max_rss,
        )
        self._terminations = 0
        self._started = False
        """Whether the app has started, and so is owed a shutdown."""

    async def run(self) -> int:
        """Live; the exit code."""
        loop = asyncio.get_running_loop()
        # Close-on-exec is not close-on-fork: a child that an app forks would keep open what was moved or closed here.
        os.register_at_fork(after_in_child=self._let_go_in_child)
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

    def _let_go_in_child(self) -> None:
        self._lull.end()
        fds = [borrowed.descriptor(connection) for connection in self._site.state.connections]
        descriptors.blind([*self._session.descriptors(), *self._resting.descriptors(), *fds])

    # Boot

    async def _boot(self) -> bool:
        """Come to READY; False when the app cannot serve, which the supervisor has been told."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not all(adoptions.has_reserve for adoptions in self._adoptions):
            # It would serve, but what others give away would wait for ever.
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return self._failed("descriptors", f"too few to take connections over: RLIMIT_NOFILE is {limit}")
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
        self._session.say_now(boot_failed(stage, message))
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
        """Do what the supervisor says; when there is none any more, go on, and look for the next."""
        while True:
            try:
                await self._obey()
            except PeerError as error:
                logger.error("the supervisor broke the hand-off protocol: %s", error)  # noqa: TRY400 - no bug of ours
            except Exception:
                logger.exception("the conversation with the supervisor failed")
            if not self._booting.done():
                self._booting.cancel()
                return
            if self._drain is None and not self._acceptors:
                self._begin_drain(self._session.welcome.drain_timeout, final=True)
                return
            try:
                await self._find_a_supervisor()
            except Exception:
                logger.exception("looking for a supervisor failed")
                await asyncio.sleep(RECONNECT_MOST)

    async def _obey(self) -> None:
        """Do what the supervisor says, until it hangs up or dies.

        Raises:
            PeerError: it says something that is no word of the protocol, or at the wrong time.
        """
        while (message := await self._session.hear()) is not None:
            match message:
                case Accept() if self._drain is None and not self._acceptors:
                    await self._accept()
                case Accept():
                    pass  # a SIGTERM from elsewhere came first
                case Drain(timeout, final, packet, park):
                    self._parks = park
                    # What cannot move has nobody to come to, now or later.
                    self._begin_drain(timeout, final=final or (park and not self._site.can_move), packet=packet)
                    if park and self._giver is not None:
                        self._giver.park(self._queue_is_full)
                case Hurry():
                    if self._drain is not None:
                        self._drain.hurry()
                case _:
                    raise PeerError(f"'{type(message).__name__}' out of turn")

    async def _find_a_supervisor(self) -> None:
        """Go on without one until one takes us back; whoever serves then drains when it has waited long enough."""
        loop, welcome = asyncio.get_running_loop(), self._session.welcome
        self._orphaned = True
        patience: asyncio.TimerHandle | None = None
        wait = RECONNECT_FIRST
        if self._asked_to_leave:
            self._drain_as_orphan()
        await asyncio.sleep(_jittered(wait))  # whoever took us back before, and hung up at once, may do so again
        # One that only replaces its own program takes us back at the first attempt, and nobody need know.
        while not await self._come_back():
            if patience is None:
                if self._drain is None:
                    logger.warning("without a supervisor: serving on for %g s", welcome.orphan_timeout)
                patience = loop.call_later(welcome.orphan_timeout, self._drain_as_orphan)
            await asyncio.sleep(_jittered(wait))
            wait = min(2 * wait, RECONNECT_MOST)
        if patience is not None:
            patience.cancel()
            logger.info("there is a supervisor again")
        self._orphaned = False
        self._news.set()

    async def _come_back(self) -> bool:
        """Whether a supervisor has taken us back, as what we are now: a drain may have begun on the way."""
        draining = self._drain is not None
        return await self._session.resume(draining=draining) and draining == (self._drain is not None)

    def _drain_as_orphan(self) -> None:
        if self._drain is None:
            logger.warning("still without a supervisor: finishing what is here, then leaving")
            self._begin_drain(self._session.welcome.drain_timeout, final=True)

    async def _accept(self) -> None:
        for name, listener in self._session.listeners:
            acceptor = Acceptor(Backlog(name, listener), self._protocol, tls=self._site.config.ssl)
            acceptor.start()
            self._acceptors.append(acceptor)
        for adopter in self._adopters:
            adopter.start()
        await self._tell(Serving())

    def _protocol(self, arrival: Arrival) -> asyncio.Protocol:
        return self._site.protocol(self._site.lifespan.state, arrival)

    def _may_adopt(self) -> bool:
        """Whether there is room under --limit-concurrency; if there is none for long, there is none anywhere."""
        now = asyncio.get_running_loop().time()
        if self._site.has_room_for(1 + sum(adopter.connecting for adopter in self._adopters)):
            self._full_since = None
            return True
        if self._full_since is None:
            self._full_since = now
        return now - self._full_since > ROOM_PATIENCE

    def _adopt(self, arrival: Arrival) -> asyncio.Protocol | None:
        self._adopted += 1
        self._cells[figures.ADOPTED] += 1
        self._lull.one_more()
        if arrival.info is not None:
            self._longest = max(self._longest, time.monotonic() - arrival.info.given)
        self._news.set()
        # With a limit uvicorn is to count them all.
        limited = self._site.config.limit_concurrency is not None
        if not limited and self._drain is None and self._resting.keep(arrival):
            return None
        return self._protocol(arrival)

    async def _tell(self, message: FromWorker) -> None:
        with contextlib.suppress(OSError):  # a supervisor that is gone is noticed where we listen to it
            await self._session.say(message)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        took = 0.0
        while True:
            due = loop.time() + BEAT
            try:
                async with asyncio.timeout_at(due):
                    await self._news.wait()
                wait = news_waits(took, due - loop.time())
                due = loop.time() + wait
                await asyncio.sleep(wait)  # together with what comes meanwhile
            except TimeoutError:
                pass  # no news
            self._news.clear()
            began = loop.time()
            self._count_lag(began - due)
            self._site.refresh_headers()
            await self._tell(await self._report())
            took = loop.time() - began

    def _count_lag(self, seconds: float) -> None:
        figures.LAGS.observe(self._cells, seconds)
        self._cells[figures.LAG] = max(0, round(seconds * figures.SECOND))

    async def _report(self) -> Report:
        drain, giver = self._drain, self._giver
        report = Report(
            await connections.count(self._site, self._resting),
            self._site.state.total_requests,
            self._worn(),
            oldest=drain.oldest() if drain is not None else {},
            given=giver.given if giver is not None else 0,
            adopted=self._adopted,
            lost=sum(adoptions.lost for adoptions in self._adoptions),
            closed=drain.closed if drain is not None else 0,
            longest=self._longest,
        )
        self._cells[figures.LOST], self._cells[figures.CLOSED] = report.lost, report.closed
        return report

    def _worn(self) -> str:
        requests = self._site.state.total_requests
        rss = 0
        with contextlib.suppress(OSError):  # out of descriptors, perhaps; the next beat looks again
            rss = memory.resident()
        age = time.monotonic() - self._began
        return self._wear.why(requests=requests, age=age, rss=rss) or self._asked_to_leave

    # Leaving

    def _terminate(self) -> None:
        """SIGTERM: leave, or if it accepts already, ask to be replaced; a second one drains, a third ends at once.

        It does not drain at once then: a service manager may send it to every process while the supervisor is about to
        say that nobody comes after, and what was given away would have nobody to take it. To a worker that drains
        already, the first says nothing new.
        """
        self._terminations += 1
        if not self._booting.done():
            self._booting.cancel()
        elif self._orphaned and self._drain is None:
            self._drain_as_orphan()
        elif self._drain is None and self._acceptors and self._terminations == 1:
            self._asked_to_leave = "SIGTERM"
            self._news.set()
            asyncio.get_running_loop().call_later(TERM_PATIENCE, self._waited_enough)
        elif self._drain is None:
            self._begin_drain(self._session.welcome.drain_timeout)
        elif self._terminations > 1:
            self._drain.cut_short()

    def _waited_enough(self) -> None:
        """Nobody has replaced this worker; if nobody can, nobody takes what it would give away, either."""
        self._begin_drain(self._session.welcome.drain_timeout, final=self._orphaned)

    def _begin_drain(self, timeout: float, *, final: bool = False, packet: int = 1) -> None:
        if self._drain is None:
            self._drain = connections.Drain(self._site, self._resting, self._changed, timeout=timeout, final=final)
            self._packet = 1 if self._site.config.limit_concurrency is not None else packet
            self._stillup.draining.begin()
            self._leaving.set()
        elif final:
            self._drain.become_final(timeout)
        if final or not self._site.can_move:
            self._site.announce_close()
        if final and self._final_since is None:
            loop = asyncio.get_running_loop()
            self._final_since = loop.time()
            loop.call_later(QUEUE_PATIENCE, self._changed.set)
            if self._giver is None:
                self._session.queue.writer.close()

    async def _leave(self) -> None:
        """Reader off first, accepts under way to their end, and only then the connections are asked: none is missed."""
        assert self._drain is not None  # noqa: S101 - for the type checker: _leaving is set after it
        loop, drain = asyncio.get_running_loop(), self._drain
        ends = loop.time() + self._session.welcome.drain_timeout
        # In a final drain the queue is read on: to its end, which is when nobody can write to it any more.
        if not drain.final or not self._acceptors:
            await self._stop_adopting()
        await asyncio.gather(*(acceptor.stop(empty=drain.final) for acceptor in self._acceptors))
        if not drain.final and self._site.can_move:
            self._giver = Giver(self._session.queue.writer, self._packet, drain.look, self._cells)
            drain.give_to(self._giver)
            if self._parks:
                self._giver.park(self._queue_is_full)
        self._news.set()
        await drain.run(self._queue_ended)
        await self._stop_adopting()
        await self._resting.stop()
        self._session.say_now(await self._report())
        await self._shut_down(max(SHUTDOWN_DEADLINE, ends - loop.time()))

    async def _stop_adopting(self) -> None:
        await asyncio.gather(*(adopter.stop() for adopter in self._adopters))

    def _queue_is_full(self) -> None:
        """What does not fit is served to its end here."""
        self._begin_drain(self._session.welcome.drain_timeout, final=True)

    def _queue_ended(self) -> bool:
        if self._adopters[0].at_end or self._parks:
            return True
        # A worker that is stopped or was cut off from its supervisor may keep it open, and so may a child of its app's.
        return self._final_since is not None and (
            asyncio.get_running_loop().time() >= self._final_since + QUEUE_PATIENCE
        )

    async def _shut_down(self, patience: float) -> None:
        """Let the app end what its startup began."""
        if not self._started:
            return
        try:
            async with asyncio.timeout(patience):
                await self._site.lifespan.shutdown()
        except TimeoutError:
            logger.error("the app's shutdown took longer than %.0f s", patience)  # noqa: TRY400 - the app's, not ours


def _jittered(seconds: float) -> float:
    """A wait of about that, so that not all come at once."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - nobody gains by guessing it


def _flush() -> None:
    """Let out what was printed, and make the streams show each line as it comes.

    A pipe made them block-buffered for good, but they are to become what the supervisor has. The app may have put
    something of its own in their place, and is free to.
    """
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.flush()  # type: ignore[union-attr]
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
