"""What a worker tells of itself, about once a second while there is anything new: here each figure is measured."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Final

from stillup.asgi.site import Site
from stillup.core.crossing import Crossed, news_waits
from stillup.core.worker_figures import WorkerFigures, is_worth_a_word
from stillup.host import memory
from stillup.wire import figure_cells
from stillup.wire.handoff_messages import Report
from stillup.worker.certificate import Certificate
from stillup.worker.connection_count import count
from stillup.worker.connection_intake import ConnectionIntake
from stillup.worker.connection_share import ConnectionShare
from stillup.worker.leadership import LeaderRole
from stillup.worker.recycling import Recycling
from stillup.worker.retirement import Retirement
from stillup.worker.supervisor_channel import SupervisorChannel
from stillup.worker.worker_events import WorkerEvents

HEARTBEAT: Final = 1.0
"""Seconds between two looks at the figures, if nothing comes up; the default headers' date is renewed with each."""


class Pace:
    """Which reports are sent: each wakes the supervisor, which may have hundreds of workers that have nothing to do."""

    def __init__(self, interval: float) -> None:
        """Have one sent every ``interval`` seconds, to the nearest heartbeat, whatever is in it."""
        self._interval = interval
        self._told = Report(WorkerFigures())
        self._told_at = -math.inf

    def takes(self, report: Report, now: float, *, awaited: bool) -> bool:
        """Take a report for being sent, if it is to be; else there will be another.

        Args:
            report: how things stand.
            now: seconds on a clock that never goes back.
            awaited: whether it is to be sent even if nothing is new.
        """
        told = self._told
        if not (
            awaited
            or now - self._told_at >= self._interval - HEARTBEAT / 2
            or report.recycle != told.recycle
            or is_worth_a_word(report.figures, told.figures)
        ):
            return False
        self._told, self._told_at = report, now
        return True


class Reporter:
    """Makes reports, and sends those that are worth a word, or due."""

    def __init__(
        self,
        supervisor: SupervisorChannel,
        site: Site,
        intake: ConnectionIntake,
        *,
        retirement: Retirement,
        recycling: Recycling,
        role: LeaderRole,
        share: ConnectionShare,
        certificate: Certificate,
        events: WorkerEvents,
    ) -> None:
        self._supervisor = supervisor
        self._cells = supervisor.figures
        self._site = site
        self._intake = intake
        self._retirement = retirement
        self._recycling = recycling
        self._role = role
        self._share = share
        self._certificate = certificate
        self._news = events.news
        self._pace = Pace(supervisor.welcome.settings.report_interval)

    async def run(self) -> None:
        """Report until cancelled; news is reported soon, together with what comes meanwhile."""
        loop = asyncio.get_running_loop()
        took = 0.0
        while True:
            due = loop.time() + HEARTBEAT
            try:
                async with asyncio.timeout_at(due):
                    await self._news.wait()
                wait = news_waits(took, due - loop.time())
                due = loop.time() + wait
                await asyncio.sleep(wait)
            except TimeoutError:
                pass  # no news
            has_news = self._news.is_set()
            self._news.clear()
            began = loop.time()
            self._count_lag(began - due)
            self._site.refresh_headers()
            self._certificate.look()
            report = await self.report()
            leaving = self._retirement.has_begun or (self._retirement.pausing and not self._retirement.at_rest)
            if self._pace.takes(report, began, awaited=has_news or leaving):
                await self._supervisor.tell(report)
            took = loop.time() - began

    async def report(self) -> Report:
        """How things stand now."""
        intake, retirement = self._intake, self._retirement
        classes = await count(self._site, intake.idle, sessions_move=retirement.sessions_move)
        crossed = Crossed(
            given=retirement.given + self._share.given,
            adopted=intake.adopted,
            lost=intake.lost,
            closed=retirement.closed,
            longest=intake.longest,
            told_to_close=retirement.told_to_close,
            sessions_given=retirement.sessions,
            sessions_adopted=intake.sessions,
            sessions_refused=self._site.refused.total(),
        )
        self._cells[figure_cells.ENDED_BY_ANSWER] = crossed.told_to_close
        self._cells[figure_cells.LOST], self._cells[figure_cells.CLOSED] = crossed.lost, crossed.closed
        self._cells[figure_cells.SESSIONS_GIVEN] = crossed.sessions_given
        self._cells[figure_cells.SESSIONS_ADOPTED] = crossed.sessions_adopted
        for reason, number in self._site.refused.items():
            self._cells[figure_cells.refused(reason)] = number
        figures = WorkerFigures(
            classes=classes,
            requests=self._site.state.total_requests,
            oldest=retirement.oldest,
            crossed=crossed,
            cut=retirement.cut,
            refused=dict(self._site.refused),
            leadership=self._role.said,
            answers=figure_cells.answers_of_app(self._cells),
            at_rest=retirement.at_rest,
            cpu=time.process_time(),
            memory=memory.resident(),
            lag=self._cells[figure_cells.LAG] / figure_cells.SECOND,
        )
        return Report(figures, self._recycling.reason(requests=figures.requests, rss=figures.memory))

    def _count_lag(self, seconds: float) -> None:
        figure_cells.LAGS.observe(self._cells, seconds)
        self._cells[figure_cells.LAG] = max(0, round(seconds * figure_cells.SECOND))
