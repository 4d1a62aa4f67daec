"""What the pages are told of the service: the newest, at most four times a second, and never a queue of it.

Each page has a stream of its own, which looks for what it has not said yet; a page that reads slowly is told less
often, and of what has happened meanwhile the newest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec
from starlette.concurrency import run_in_threadpool

from stillup.client.control_client import Client
from stillup.client.live_service import ANSWER, EVENTS, LiveService
from stillup.core.drain import RULES
from stillup.core.series import PERIOD
from stillup.errors import StillupError
from stillup.wire.api_shapes import Status, Whoami
from stillup.wire.event_encoding import AnyEvent
from stillup.wire.series_view import SeriesView

TICK: Final = 0.25
"""Seconds between two pieces of a stream at least."""
PULSE: Final = 1.0
"""Seconds after which is looked for news that nobody has told of."""
_FAMILIES: Final = {kind: rule.family for kind, rule in RULES.items()}


class _Told(msgspec.Struct):
    """What a page has been told."""

    me: Whoami | None = None
    status: Status | None = None
    series: SeriesView | None = None
    trouble: str = ""
    event: AnyEvent | None = None
    """The last one."""


class DashboardFeed:
    """Asks the service, from ``run`` on, for all pages. ``me``: who the service says that we are."""

    def __init__(self, client: Client, me: Whoami, name: str) -> None:
        self._client = client.within(ANSWER)
        self._me = me
        self._name = name
        self._live = LiveService(client, self._changed)
        self._series: SeriesView | None = None
        self._pages: set[asyncio.Event] = set()
        """Of each page: set when there may be something that it was not told."""
        self._looked_at = asyncio.Event()
        """Set while there are any."""
        self._over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._encoded: tuple[Status | None, bytes] = (None, b"")

    async def run(self) -> None:
        """Ask, until this is cancelled."""
        self._loop = asyncio.get_running_loop()
        self._live.start()
        try:
            while True:
                await self._looked_at.wait()
                with contextlib.suppress(StillupError):  # the stream says so, or the service is older than this
                    self._series = await run_in_threadpool(self._client.series)
                with contextlib.suppress(StillupError):
                    me = await run_in_threadpool(self._client.whoami)
                    # Each call has another pid over ssh, and groups do not matter beside the role.
                    if (me.role, me.may) != (self._me.role, self._me.may):
                        self._me = me
                self._wake()
                await asyncio.sleep(PERIOD)
        finally:
            self._live.end()

    def end(self) -> None:
        """End all streams, now; from any thread, or a signal's handler."""
        self._over = True
        self._changed()

    def look_soon(self) -> None:
        """Have the status looked at: something was asked for."""
        self._live.look_soon()

    async def lines(self) -> AsyncIterator[bytes]:
        """All that a page is to know, as lines of JSON, for as long as it reads."""
        news, told = asyncio.Event(), _Told()
        self._pages.add(news)
        self._looked_at.set()
        try:
            while not self._over:
                news.clear()
                if said := b"".join(msgspec.json.encode(one) + b"\n" for one in self._unsaid(told)):
                    yield said
                    await asyncio.sleep(TICK)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PULSE):
                        await news.wait()
        finally:
            self._pages.discard(news)
            if not self._pages:
                self._looked_at.clear()

    def _changed(self) -> None:
        """As ``_wake``, from another thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for news in self._pages:
            news.set()

    def _unsaid(self, told: _Told) -> list[dict[str, Any]]:
        """What is to be said, and is taken for said."""
        moment = self._live.moment()
        said: list[dict[str, Any]] = []
        if told.me is not self._me:
            told.me = self._me
            remote = self._client.remote.url if self._client.remote is not None else ""
            whoami = {"role": self._me.role, "may": self._me.may}
            hello = {"whoami": whoami, "name": self._name, "remote": remote, "families": _FAMILIES}
            said.append({"hello": hello})
        if told.trouble != moment.trouble:
            told.trouble = moment.trouble
            said.append({"trouble": moment.trouble})
        if moment.status is not None and told.status is not moment.status:
            told.status = moment.status
            said.append({"status": self._json(moment.status)})
        if events := self._later(moment.events, told.event):
            skipped = _between(told.event, events[0])
            told.event = events[-1]
            said.append({"events": events, "skipped": skipped})
        if self._series is not None and told.series is not self._series:
            told.series = self._series
            said.append({"series": self._series})
        return said

    def _json(self, status: Status) -> msgspec.Raw:
        """The same for all pages."""
        if self._encoded[0] is not status:
            self._encoded = status, msgspec.json.encode(status)
        return msgspec.Raw(self._encoded[1])

    @staticmethod
    def _later(events: Sequence[AnyEvent], last: AnyEvent | None) -> Sequence[AnyEvent]:
        """Those after that one: all of them if it is no longer known, or was of a service that has stopped since."""
        for place in range(len(events) - 1, -1, -1):
            if events[place] is last:
                return events[place + 1 :]
        return events[-EVENTS:]


def _between(last: AnyEvent | None, first: AnyEvent) -> int:
    """How many events there were between two, as far as their numbers tell."""
    return max(0, first.seq - last.seq - 1) if last is not None else 0
