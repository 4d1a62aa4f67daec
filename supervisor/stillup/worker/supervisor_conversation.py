"""The conversation with the supervisor: what it says is done; when it is gone, the next one is looked for."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final

from stillup.core.drain import HurriedStreams
from stillup.errors import PeerError
from stillup.wire import handoff_messages
from stillup.wire.handoff_messages import Accept, Adopt, Cordon, Drain, Give, Hurry, KeepOnly, Lead, Pause, Serving
from stillup.worker.connection_intake import ConnectionIntake
from stillup.worker.connection_share import ConnectionShare
from stillup.worker.leadership import LeaderRole
from stillup.worker.recycling import Recycling
from stillup.worker.retirement import Retirement
from stillup.worker.supervisor_channel import SupervisorChannel
from stillup.worker.worker_events import WorkerEvents

logger = logging.getLogger("uvicorn.error")

RECONNECT_FIRST: Final = 0.05
"""Seconds between the first two attempts to find a supervisor; each later wait is twice as long, up to the next."""
RECONNECT_MOST: Final = handoff_messages.LONGEST_WAIT
COUNTED: Final = 3 * RECONNECT_MOST
"""Seconds that a worker which has finished waits for a supervisor that takes up what it has counted."""


class SupervisorConversation:
    """A worker's side of it, with one supervisor after the other."""

    def __init__(
        self,
        supervisor: SupervisorChannel,
        intake: ConnectionIntake,
        retirement: Retirement,
        recycling: Recycling,
        *,
        role: LeaderRole,
        share: ConnectionShare,
        events: WorkerEvents,
    ) -> None:
        self._supervisor = supervisor
        self._intake = intake
        self._retirement = retirement
        self._recycling = recycling
        self._role = role
        self._share = share
        self._news = events.news
        self.orphaned = False
        """Whether there is no supervisor now."""
        self._gave_up = False
        """Whether it leaves since there has been none for too long."""

    async def run(self, booting: asyncio.Task[bool]) -> None:
        """Do what the supervisor says; when there is none any more, go on, and look for the next.

        Without one the boot, if it is not done, is cancelled: nobody else could say when to accept.
        """
        while True:
            try:
                await self._obey()
            except PeerError as error:
                logger.error("the supervisor broke the hand-off protocol: %s", error)  # noqa: TRY400 - no bug of ours
            except Exception:
                logger.exception("the conversation with the supervisor failed")
            if not booting.done():
                booting.cancel()
                return
            if not self._retirement.has_begun and not self._intake.accepts:
                self._retirement.begin(final=True)
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
        while (message := await self._supervisor.hear()) is not None:
            match message:
                case Accept() if self._retirement.pausing or not (self._retirement.has_begun or self._intake.accepts):
                    if self._retirement.pausing:
                        self._retirement.come_back()
                    else:
                        self._intake.accept()
                    await self._supervisor.tell(Serving())
                case Accept():
                    pass  # a SIGTERM from elsewhere came first
                case Pause():
                    if self._intake.accepts:
                        self._retirement.pause(message)
                case Drain():
                    self._retirement.begin_as_told(message)
                case Hurry(every):
                    self._retirement.end_streams(HurriedStreams.ALL if every else HurriedStreams.EVENT_SOURCES)
                case Cordon(on):
                    self._intake.cordon(on=on)
                case Lead(term):
                    self._role.told(term)
                case Adopt(on):
                    if not (self._retirement.has_begun or self._retirement.pausing):  # which read it as they have to
                        self._intake.adopt(on=on)
                case Give(share):
                    self._share.give(share)
                case KeepOnly(listeners):
                    self._intake.keep_only(listeners)
                case _:
                    raise PeerError(f"'{type(message).__name__}' out of turn")

    async def _find_a_supervisor(self) -> None:
        """Go on without one until one takes us back; whoever serves then drains when it has waited long enough."""
        loop, timeout = asyncio.get_running_loop(), self._supervisor.welcome.settings.orphan_timeout
        self.orphaned = True
        if not (self._retirement.has_begun or self._retirement.pausing):
            self._intake.adopt(on=True)  # the next one says so again, if it is not to
        patience: asyncio.TimerHandle | None = None
        wait = RECONNECT_FIRST
        if self._recycling.asked:
            self.retire_as_orphan()
        await asyncio.sleep(_jittered(wait))  # whoever took us back before, and hung up at once, may do so again
        # One that only replaces its own program takes us back at the first attempt, and nobody need know.
        while not await self._come_back():
            if patience is None:
                if not self._retirement.has_begun:
                    logger.warning("without a supervisor: %s on for %g s", self._does, timeout)
                patience = loop.call_later(timeout, self.retire_as_orphan)
            await asyncio.sleep(_jittered(wait))
            wait = min(2 * wait, RECONNECT_MOST)
        # The next one says so again, if it is so.
        self._intake.cordon(on=False)
        if patience is not None:
            patience.cancel()
            logger.info("there is a supervisor again")
        self.orphaned = False
        self._news.set()

    async def be_counted(self) -> None:
        """Wait until a supervisor has what was counted here, if one was there until just now: it ends with us."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + COUNTED
        while self.orphaned and not self._gave_up and loop.time() < ends:  # noqa: ASYNC110 - for a moment, when a supervisor has just died
            await asyncio.sleep(RECONNECT_FIRST)

    async def _come_back(self) -> bool:
        """Whether a supervisor has taken us back, as what we are now: a drain may have begun on the way."""
        draining, paused = self._retirement.has_begun, self._retirement.pausing
        taken = await self._supervisor.resume(draining=draining, leads=self._role.leads, paused=paused)
        if self._supervisor.turned_away:
            self._role.turned_away()
        return taken and draining == self._retirement.has_begun

    @property
    def _does(self) -> str:
        return "paused" if self._retirement.pausing else "serving"

    def retire_as_orphan(self) -> None:
        """Finish what is here, unless that is under way already."""
        self._gave_up = True
        if not self._retirement.has_begun:
            logger.warning("still without a supervisor: finishing what is here, then leaving")
            self._retirement.begin_as_orphan()


def _jittered(seconds: float) -> float:
    """A wait of about that, so that not all come at once."""
    return seconds * random.uniform(0.5, 1.0)  # noqa: S311 - nobody gains by guessing it
