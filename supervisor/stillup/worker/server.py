"""A worker's life: boot, be READY, accept when told, retire when told. The parts are put together here."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import time
from functools import partial
from typing import Final

from uvicorn.config import Config

from stillup.asgi.proxy_trust import is_proxy
from stillup.asgi.site import Site
from stillup.host import descriptors
from stillup.worker.app_state import Stillup, be_current
from stillup.worker.boot import Boot
from stillup.worker.certificate import Certificate
from stillup.worker.connection_intake import ConnectionIntake
from stillup.worker.connection_share import ConnectionShare
from stillup.worker.leadership import LeaderRole
from stillup.worker.recycling import Recycling, draw_limits
from stillup.worker.reporter import Reporter
from stillup.worker.retirement import SHUTDOWN_DEADLINE, Retirement, shut_down
from stillup.worker.supervisor_channel import SupervisorChannel
from stillup.worker.supervisor_conversation import SupervisorConversation
from stillup.worker.worker_events import WorkerEvents
from stillup.worker.worker_log import WorkerLog

TERM_PATIENCE: Final = 10.0
"""Seconds that a worker which was sent SIGTERM serves on until its replacement does."""


class Server:
    """Runs one app on the listeners that a supervisor has handed over."""

    def __init__(self, supervisor: SupervisorChannel, config: Config, log: WorkerLog) -> None:
        self._supervisor = supervisor
        self._events = events = WorkerEvents()
        self._site = site = Site(config, supervisor.figures)
        site.is_proxy = partial(is_proxy, supervisor.welcome.settings)
        site.on_refusal = events.news.set
        app = be_current(Stillup(supervisor.welcome.generation, supervisor.welcome.worker))
        role = LeaderRole(supervisor, app.leader, events.news)
        self._leader = app.leader
        self._boot = Boot(supervisor, site, app, log)
        self._intake = intake = ConnectionIntake(supervisor, site, events)
        self._recycling = recycling = Recycling(draw_limits(config, supervisor.welcome.settings))
        self._retirement = retirement = Retirement(supervisor, site, intake, app, events)
        self._share = share = ConnectionShare(supervisor.queue, site, intake.idle, events)
        self._conversation = SupervisorConversation(
            supervisor, intake, retirement, recycling, role=role, share=share, events=events
        )
        self._reporter = Reporter(
            supervisor,
            site,
            intake,
            retirement=retirement,
            recycling=recycling,
            role=role,
            share=share,
            certificate=Certificate(config, intake.use_tls, time.monotonic),
            events=events,
        )
        self._terminations = 0

    async def run(self) -> int:
        """Live; the exit code."""
        loop = asyncio.get_running_loop()
        # Close-on-exec is not close-on-fork: a child that an app forks would keep open what was moved or closed here.
        os.register_at_fork(after_in_child=self._let_go_in_child)
        self._booting = booting = loop.create_task(
            self._boot.run(self._terminate, has_reserve=self._intake.has_reserve)
        )
        conversation = loop.create_task(self._conversation.run(booting))
        heartbeat = None
        try:
            try:
                booted = await booting
            except asyncio.CancelledError:
                booted = False  # told to leave before it was READY
            faulthandler.cancel_dump_traceback_later()
            if not booted:
                await self._shut_down(SHUTDOWN_DEADLINE)
                return 0 if booting.cancelled() else 1
            heartbeat = loop.create_task(self._reporter.run())
            while not self._retirement.has_begun:
                await self._events.retiring.wait()
                await self._retirement.run()
            self._supervisor.say_now(await self._reporter.report())
            await self._shut_down(self._retirement.time_left)
            if not self._terminations:
                await self._conversation.be_counted()
        finally:
            conversation.cancel()
            if heartbeat is not None:
                heartbeat.cancel()
            self._supervisor.let_go()
        return 0

    async def _shut_down(self, patience: float) -> None:
        if self._boot.started:
            await shut_down(self._site, patience)

    def _let_go_in_child(self) -> None:
        self._leader.forked()
        self._intake.end_gc_pause()
        descriptors.blind([*self._supervisor.descriptors(), *self._intake.descriptors(), *self._share.descriptors()])

    def _terminate(self) -> None:
        """SIGTERM: leave, or if it accepts already, ask to be replaced; a second one drains, a third ends at once.

        It does not drain at once then: a service manager may send it to every process while the supervisor is about to
        say that nobody comes after, and what was handed over would have nobody to take it. To a worker that drains
        already, the first says nothing new, unless there is no supervisor that could say so.
        """
        self._terminations += 1
        retiring = self._retirement.has_begun
        if not self._booting.done():
            self._booting.cancel()
        elif self._conversation.orphaned and not retiring:
            self._conversation.retire_as_orphan()
        elif self._retirement.pausing:
            self._retirement.begin()  # nobody is served by it that would have to be by another first
        elif not retiring and self._intake.accepts and self._terminations == 1:
            self._recycling.asked = "SIGTERM"
            self._events.news.set()
            asyncio.get_running_loop().call_later(TERM_PATIENCE, self._waited_enough)
        elif not retiring:
            self._retirement.begin()
        elif self._conversation.orphaned and self._terminations == 1:
            self._retirement.begin(final=True)
        elif self._terminations > 1:
            self._retirement.cut_short()

    def _waited_enough(self) -> None:
        """Nobody has replaced this worker; if nobody can, nobody takes what it would hand over, either."""
        self._retirement.begin(final=self._conversation.orphaned)
