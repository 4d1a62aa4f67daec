"""Whether this worker leads: what the supervisor tells of it, the lock that goes with it, and what the app makes of it.

It leads who was told to, and holds the lock. Told to let go it goes on leading until the app has: the lock is given up
first, and then the supervisor is told. Without a supervisor it leads on, since nobody else is told to meanwhile; one
that turns this worker away counts on it no more, so it is to let go.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from stillup.core.worker_figures import Leadership
from stillup.host import leader_lock
from stillup.worker.app_state import Leader
from stillup.worker.supervisor_channel import SupervisorChannel

logger = logging.getLogger("uvicorn.error")

LOCK_AGAIN: Final = 0.05
"""Seconds between two attempts to take a lock that somebody holds."""


class LeaderRole:
    """A worker's part in it."""

    def __init__(self, supervisor: SupervisorChannel, leader: Leader, news: asyncio.Event) -> None:
        """``news`` is set when there is something to report."""
        self._supervisor = supervisor
        self._leader = leader
        self._news = news
        self._term = 0
        """The one in which it was told to lead; 0 once it has let go."""
        self._locked = False
        self._let_go = 0
        self._noted = Leadership()
        """What was news last."""
        leader.changed = self._look

    @property
    def said(self) -> Leadership:
        """What there is to report."""
        leader = self._leader
        return Leadership(
            wants=not leader.retired and (leader.waits or leader.inside > 0),
            leads=self._term > 0 and self._locked and leader.inside > 0,
            let_go=self._let_go,
        )

    @property
    def leads(self) -> bool:
        """Whether it was told to, and has not let go."""
        return self._term > 0

    def told(self, term: int) -> None:
        """Lead; who does already has another lock to take, and goes on.

        A term that it has let go is one that this supervisor has not heard the end of, as its record has not: say so.
        """
        if not self._term and term <= self._let_go:
            self._supervisor.give_up_lock()
            self._news.set()
            return
        self._term = term
        self._locked = False
        self._look()

    def turned_away(self) -> None:
        """A supervisor does not know this worker."""
        if self._term:
            self._leader.end()
            self._look()

    def _look(self) -> None:
        """See what is to be done now."""
        leader = self._leader
        if self._term and not leader.inside and (leader.ends or not leader.waits):
            self._end()
        elif self._term and not self._locked and self._supervisor.leader_lock >= 0:
            self._take_lock()
        if self.said != self._noted:
            self._noted = self.said
            self._news.set()

    def _take_lock(self) -> None:
        try:
            self._locked = leader_lock.take(self._supervisor.leader_lock)
        except OSError as error:
            logger.error("the leader's lock cannot be taken: %s", error.strerror)  # noqa: TRY400 - no bug
            return
        if not self._locked:
            asyncio.get_running_loop().call_later(LOCK_AGAIN, self._look)
        elif not self._leader.inside:
            self._leader.begin()

    def _end(self) -> None:
        self._supervisor.give_up_lock()
        self._leader.over()
        self._term, self._let_go = 0, self._term
        self._locked = False
