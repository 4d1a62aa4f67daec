"""How a worker retires: it takes no more, hands over what it holds, ends what is left, and lets the app shut down."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Final

from stillup.asgi.site import Site
from stillup.core.crossing import Crossed
from stillup.core.drain import SHUTDOWN_RESERVE, ClassTimeouts, HurriedStreams, before_shutdown, uniform
from stillup.core.values import replace
from stillup.wire import handoff_messages
from stillup.worker.app_state import Stillup
from stillup.worker.connection_drain import ConnectionDrain
from stillup.worker.connection_intake import ConnectionIntake
from stillup.worker.connection_sender import ConnectionSender
from stillup.worker.supervisor_channel import SupervisorChannel
from stillup.worker.worker_events import WorkerEvents

logger = logging.getLogger("uvicorn.error")

QUEUE_PATIENCE: Final = 5.0
"""Seconds of a final drain in which the adoption queue is read on for its end."""
ORPHANS_PATIENCE: Final = 0.5
"""The same without a supervisor: all workers end, at about the same time, so nobody puts anything there any more. Its
end may never come, since a service manager holds it, too."""
SHUTDOWN_DEADLINE: Final = SHUTDOWN_RESERVE
"""Seconds that the app's lifespan shutdown gets at least, but at the end of the service, of whose time it is a part."""


class Retirement:
    """The end of one worker, from the first word of it. It begins once; later words change its rules.

    A pause is the first part of one: nothing new is taken, and what is here leaves as in a drain. It ends by the word
    to leave, and then that drain goes on; or by the word to accept, and then what is left is served as ever.
    """

    def __init__(
        self, supervisor: SupervisorChannel, site: Site, intake: ConnectionIntake, app: Stillup, events: WorkerEvents
    ) -> None:
        self._supervisor = supervisor
        self._site = site
        self._intake = intake
        self._app = app
        self._events = events
        self._drain: ConnectionDrain | None = None
        self._sender: ConnectionSender | None = None
        self._pausing = False
        self._was_paused = False
        """Whether it took nothing in its last days already: what is in the queue is for those that do."""
        self._word = asyncio.Event()
        """Set when a pause ends, in either way."""
        site.gives_sessions = self._gives_sessions
        self._before = Crossed()
        self._cut_before: Counter[str] = Counter()
        """What came of earlier pauses."""
        self.at_rest = False
        """Whether it is paused, and nothing of what it held is left."""
        self._packet = 1
        self._parks = False
        """Whether what is sent waits in the queue for the workers of a later supervisor."""
        self._sessions = False
        """Whether who takes over knows sessions that go on."""
        self._final_since: float | None = None
        self._patience = QUEUE_PATIENCE
        self._shutdown_by = 0.0
        self._shutdown_at_least = SHUTDOWN_DEADLINE
        self._service_ends = False
        """Whether the shutdown's end is that of the service, which a later word does not put off."""

    @property
    def has_begun(self) -> bool:
        """Whether this worker leaves; not while it is paused."""
        return self._drain is not None and not self._pausing

    @property
    def pausing(self) -> bool:
        return self._pausing

    @property
    def given(self) -> int:
        """Connections put into the adoption queue."""
        return self._before.given + (self._sender.given if self._sender is not None else 0)

    @property
    def sessions(self) -> int:
        """Sessions among those that were given."""
        return self._before.sessions_given + (self._sender.sessions if self._sender is not None else 0)

    @property
    def sessions_move(self) -> bool:
        """Whether what an app hands over goes on elsewhere; so while this worker serves."""
        if self._drain is None:
            return True
        return self._sessions and not self._drain.final and (self._sender is None or self._sender.works)

    def _gives_sessions(self) -> bool:
        return self._drain is not None and self._sender is not None and self.sessions_move

    @property
    def closed(self) -> int:
        """Connections without a request in progress that had to be ended."""
        return self._before.closed + (self._drain.closed if self._drain is not None else 0)

    @property
    def told_to_close(self) -> int:
        """Connections that ended while answers said ``Connection: close``."""
        return self._before.told_to_close + (self._drain.told_to_close if self._drain is not None else 0)

    @property
    def oldest(self) -> Mapping[str, float]:
        """For each class, how many seconds its oldest connection has been doing that since the drain began."""
        return self._drain.oldest() if self._drain is not None else {}

    @property
    def time_left(self) -> float:
        """Seconds that the app's shutdown may take."""
        return max(self._shutdown_at_least, self._shutdown_by - asyncio.get_running_loop().time())

    @property
    def cut(self) -> Mapping[str, int]:
        """By class, what was ended before it was done."""
        return dict(self._cut_before + self._drain.cut) if self._drain is not None else dict(self._cut_before)

    def begin(
        self,
        timeouts: ClassTimeouts | None = None,
        *,
        final: bool = False,
        packet: int = 1,
        ends: bool | None = None,
    ) -> None:
        """Retire within some time (None: as was configured).

        Args:
            timeouts: of a retirement that has begun, they count if the service ends and that is earlier.
            final: nobody comes after, so nothing is handed over.
            packet: connections that may be handed over at a time.
            ends: whether the service does, so that the app's shutdown is part of that time; None: if this is final.
        """
        timeouts = self._configured(final=final) if timeouts is None else timeouts
        ends = final if ends is None else ends
        if ends:
            timeouts = self._with_shutdown(timeouts)
        if self._drain is None:
            self._start(timeouts, final=final, packet=packet)
            self._leave_time(timeouts)
        elif ends:
            self._drain.shorten(timeouts.whole, final=final)
        if self._pausing:
            self._leave_pause(timeouts)
        if final or not self._site.can_move:
            self._site.announce_close()
        if final:
            self._app.shutdown.should_exit = True
            if not self._was_paused:
                self._intake.adopt(on=True)
        if final and self._final_since is None:
            loop = asyncio.get_running_loop()
            self._final_since = loop.time()
            loop.call_later(self._patience, self._events.changed.set)
            if self._sender is None:
                self._supervisor.queue.writer.close()

    def _start(self, timeouts: ClassTimeouts, *, final: bool, packet: int) -> None:
        """Take nothing new, and let what is here leave."""
        idle, changed = self._intake.idle, self._events.changed
        self._drain = ConnectionDrain(self._site, idle, changed, timeouts=timeouts, final=final)
        self._packet = 1 if self._site.config.limit_concurrency is not None else packet
        self._site.drain_begins.clear()
        self._app.draining.begin()
        self._app.leader.retire()
        self._events.retiring.set()

    def pause(self, told: handoff_messages.Pause) -> None:
        """Take nothing new, let what is here leave, and wait for the next word. Nothing if that was said already."""
        if self._drain is None:
            self._sessions = told.sessions
            self._word.clear()
            self._pausing = self._was_paused = True
            self._start(ClassTimeouts(told.timeout, told.streams, told.websockets), final=False, packet=told.packet)
            if not self._site.can_move:
                self._site.announce_close()

    def _leave_time(self, timeouts: ClassTimeouts) -> None:
        """Have the app's shutdown take what is left, when all else has ended, of the time to leave."""
        self._shutdown_by = max(self._shutdown_by, asyncio.get_running_loop().time() + timeouts.requests)

    def _leave_pause(self, timeouts: ClassTimeouts) -> None:
        """Let the pause's drain go on to its end, as that of a worker that leaves."""
        assert self._drain is not None  # noqa: S101 - for the type checker: a pause has one
        self._leave_time(timeouts)
        self._pausing = False
        self._word.set()
        self._drain.interrupt()

    def come_back(self) -> None:
        """Take what comes again, and serve what is left as ever. Only in a pause."""
        assert self._drain is not None  # noqa: S101 - for the type checker: a pause has one
        self._drain.call_off()
        self._site.drain_begins.set()
        self._before = replace(
            self._before,
            given=self.given,
            closed=self.closed,
            told_to_close=self.told_to_close,
            sessions_given=self.sessions,
        )
        self._cut_before = Counter(self.cut)
        self._drain = self._sender = None
        self._pausing = self._was_paused = self.at_rest = False
        self._word.set()
        self._events.retiring.clear()
        self._site.retract_close()
        self._app.draining.over()
        self._app.leader.serve_again()
        self._intake.accept_again()

    def _with_shutdown(self, timeouts: ClassTimeouts) -> ClassTimeouts:
        """The connections' part of the time in which the service ends; one that ends at once cuts no shutdown short."""
        if not self._site.has_shutdown or not timeouts.whole:
            return timeouts
        connections = before_shutdown(timeouts)
        # What is cut may take a moment to end; an app that is told nothing of its end is worse than one a moment late.
        self._shutdown_at_least = (timeouts.whole - connections.whole) / 2
        by = asyncio.get_running_loop().time() + timeouts.whole
        self._shutdown_by = min(self._shutdown_by, by) if self._service_ends else by
        self._service_ends = True
        return connections

    def begin_as_orphan(self) -> None:
        """Retire since there is no supervisor, and no other worker to take anything over."""
        self._patience = ORPHANS_PATIENCE
        self.begin(final=True)

    def _configured(self, *, final: bool) -> ClassTimeouts:
        """The times of a retirement that nobody has ordered."""
        welcome = self._supervisor.welcome
        requests, settings = welcome.drain_timeout, welcome.settings
        if final:
            return uniform(requests if settings.stop_timeout is None else settings.stop_timeout)
        streams = requests if settings.drain_timeout_stream is None else settings.drain_timeout_stream
        return ClassTimeouts(requests, streams, settings.drain_timeout_websocket)

    def begin_as_told(self, told: handoff_messages.Drain) -> None:
        """Do what the supervisor's word says."""
        self._parks = told.park
        self._sessions = told.sessions
        # What cannot move has nobody to come to, now or later.
        final = told.final or (told.park and not self._site.can_move)
        streams = told.timeout if told.streams is None else told.streams
        self.begin(
            ClassTimeouts(told.timeout, streams, told.websockets),
            final=final,
            packet=told.packet,
            ends=final or told.park,
        )
        if told.park and self._sender is not None:
            self._sender.park(self._queue_is_full)

    def end_streams(self, which: HurriedStreams) -> None:
        """End endless answers now."""
        if self._drain is not None:
            self._drain.hurry(which)

    def cut_short(self) -> None:
        """End everything now."""
        if self._drain is not None:
            self._drain.cut_short()

    async def run(self) -> None:
        """Reader off first, accepts under way to their end, and only then the connections are asked: none is missed.

        Ends when all is over, or this worker has come back from a pause: then it has not ``has_begun``.
        """
        intake = self._intake
        while (drain := self._drain) is not None:
            pausing = self._pausing
            if pausing:
                await intake.pause()
            else:
                # In a final drain the queue is read on: to its end, which is when nobody can write to it any more.
                if not drain.final or self._was_paused or not intake.accepts:
                    await intake.stop_adopting()
                await intake.stop_accepting(empty=drain.final)
            if drain is not self._drain or pausing is not self._pausing:
                continue  # another word came meanwhile
            self._send(drain)
            self._site.drain_begins.set()
            self._events.news.set()
            await drain.run(self._queue_ended)
            if not pausing:
                break
            if drain is not self._drain:
                continue
            self.at_rest = self._pausing
            self._events.news.set()
            await self._word.wait()
            self.at_rest = False
        if self._drain is None:
            return
        if self._sender is not None:
            self._sender.stop()
        await intake.stop_adopting()
        await intake.idle.stop()

    def _send(self, drain: ConnectionDrain) -> None:
        """Hand over what may move, to those who take over."""
        if drain.final or not self._site.can_move or self._sender is not None:
            return
        self._sender = ConnectionSender(
            self._supervisor.queue.writer,
            self._packet,
            drain.look,
            self._supervisor.figures,
            takes_sessions=self._sessions,
        )
        drain.send_with(self._sender)
        if self._parks:
            self._sender.park(self._queue_is_full)

    def _queue_is_full(self) -> None:
        """What does not fit is served to its end here."""
        self.begin(final=True)

    def _queue_ended(self) -> bool:
        if self._intake.queue_at_end or self._parks:
            return True
        # A worker that is stopped or was cut off from its supervisor may keep it open, and so may a child of its app's.
        return self._final_since is not None and (
            asyncio.get_running_loop().time() >= self._final_since + self._patience
        )


async def shut_down(site: Site, patience: float) -> None:
    """Let an app that has started end what its startup began, for at most ``patience`` seconds."""
    try:
        async with asyncio.timeout(patience):
            await site.lifespan.shutdown()
    except TimeoutError:
        logger.error("the app's shutdown took longer than %.0f s", patience)  # noqa: TRY400 - the app's, not ours
