"""The history of events: numbered, bounded, and kept in a file for the next supervisor.

1. An event is published when it is in the file; no reader sees it before. So a supervisor that comes after a kill -9
   goes on with the number after the last one that anybody has seen. write(2) is enough for that, without fsync(2): what
   the kernel has taken outlives the process, and what ends the host ends the readers.
2. Announcing waits for nothing: one thread writes. While it cannot (no room, a disk that hangs) events are published
   from memory; what the next supervisor finds is behind then, and it says so to those who have read further.
3. A reader is nothing but the number of the last event that it has, and looks here for those after it. So a slow one
   costs nobody anything, and one that the history has left behind is told what it missed.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from stillup.daemon.state.thread_wait import are_done
from stillup.daemon.state.writer_thread import PATIENCE, Writer
from stillup.host.descriptors import write_all
from stillup.host.runtime_directory import RuntimeDirectory
from stillup.wire import event_encoding
from stillup.wire.event_encoding import Entry
from stillup.wire.event_envelope import Envelope
from stillup.wire.event_feed import make
from stillup.wire.runtime_paths import EVENTS

logger = logging.getLogger("stillup")

MOST: Final = 1_000
"""Events that are kept; in the file up to twice as many."""
BATCH: Final = 100
"""Events that a reader gets at a time: others have their turn after each batch."""


class History:
    """What has happened, for readers. ``run`` has to run; everything else belongs to the loop's thread, too."""

    def __init__(self, runtime: RuntimeDirectory, most: int = MOST) -> None:
        """Go on where the file in the runtime directory ends, if there is one."""
        self._path = runtime.file(EVENTS)
        self._most = most
        self._kept = deque(_read(runtime), maxlen=most)
        self.next = self.newest + 1
        """The number of the next event."""
        self._announced: list[Entry] = []
        """Those that are not published yet."""
        self._wanted = asyncio.Event()
        self._more = asyncio.Event()
        """Set, and replaced, when there is more for readers."""
        self._ended = False
        self._file = _File(runtime)
        self._writer = Writer("history")
        self._written: int | None = None
        """Events in the file; None while it is not known to end with what was published last."""
        self._trouble = ""

    @property
    def newest(self) -> int:
        """The number of the last published event; 0 before the first."""
        return self._kept[-1].seq if self._kept else 0

    def append(self, kind: str, data: Mapping[str, object]) -> Envelope:
        """Give what happened its number, and have it written down and published.

        Raises:
            KeyError, ValueError: nothing was appended; there is no such kind, or it has other data.
        """
        event = _make(kind, data, self.next)
        self._announced.append(event_encoding.entry(event))
        self.next += 1
        self._wanted.set()
        return event

    async def run(self) -> None:
        """Write down what is announced, and publish it; does not return."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            batch, self._announced = self._announced, []
            await self._write_down(batch)
            self._kept.extend(batch)
            self._tell()

    async def _write_down(self, batch: list[Entry]) -> None:
        compact = self._written is None or self._written + len(batch) > 2 * self._most
        entries = [*self._kept, *batch][-self._most :] if compact else batch
        count = len(entries) if compact else (self._written or 0) + len(batch)
        self._written = None  # until it is known to be written
        trouble = await self._writer.write(self._file.write, entries, compact)
        if not trouble:
            self._written = count
        if trouble and not self._trouble:
            logger.error("%s cannot be written: %s; events go on without it", self._path, trouble)
        elif self._trouble and not trouble:
            logger.info("%s is written again", self._path)
        self._trouble = trouble

    def _tell(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    async def settle(self) -> None:
        """Wait until everything that was announced is published, but not for a bug."""
        published = asyncio.ensure_future(self._all_published())
        if not await are_done({published}, 2 * PATIENCE):
            published.cancel()
            logger.error("the last events were not published")

    async def _all_published(self) -> None:
        while self.newest < self.next - 1:
            await self._more.wait()

    def end(self) -> None:
        """Let readers come to their end: they get what is published."""
        self._ended = True
        self._tell()

    def go_on(self) -> None:
        """Let readers follow again."""
        self._ended = False

    def close(self) -> None:
        """End it for readers and for good; the next supervisor goes on with the file."""
        self.end()
        self._writer.close()
        if not self._writer.busy:
            self._file.close()

    async def read(self, since: int | None, *, follow: bool) -> AsyncIterator[Sequence[Entry]]:
        """The events after number ``since``, or all that are kept, in batches; with ``follow`` also those to come.

        Where events between are missing, or ``since`` is beyond what there is, one of kind ``feed.gap`` comes first.
        """
        last = None if follow else self.newest
        at = since if since is not None else self.newest - len(self._kept)
        while True:
            more = self._more
            batch = []
            if not at <= self.newest <= at + len(self._kept):
                gap = self._gap(at)
                batch.append(gap)
                at = gap.seq
            elif last is not None and at >= last:
                return
            batch += self._after(at)  # with the gap: when that has been sent, what it says is next may be gone, too
            if batch:
                yield batch
                at = batch[-1].seq
                await asyncio.sleep(0)
            elif self._ended:
                return
            else:
                await more.wait()

    def _after(self, number: int) -> list[Entry]:
        begin = number - self.newest + len(self._kept)
        return list(itertools.islice(self._kept, begin, begin + BATCH))

    def _gap(self, since: int) -> Entry:
        begin = self.newest - len(self._kept)
        return event_encoding.entry(_make("feed.gap", {"since": since, "next": begin + 1}, begin))


class _File:
    """The history's file; used by the writer's thread alone, while that is there."""

    def __init__(self, runtime: RuntimeDirectory) -> None:
        self._runtime = runtime
        self._fd: int | None = None

    def write(self, entries: Sequence[Entry], compact: bool) -> None:  # noqa: FBT001 - for a thread
        """Append to the file, or ``compact`` it: have these alone in it.

        Raises:
            OSError: it cannot be; what the file ends with is not known.
        """
        content = b"".join(each.ndjson for each in entries)
        if not compact and self._fd is not None:
            write_all(self._fd, content)
            return
        self.close()
        self._runtime.replace(EVENTS, content)
        self._fd = self._runtime.append(EVENTS)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _make(kind: str, data: Mapping[str, object], seq: int) -> Envelope:
    return make(kind, data, seq=seq, at=datetime.now(UTC), monotonic=time.monotonic())


def _read(runtime: RuntimeDirectory) -> list[Entry]:
    """What the supervisor before us has left."""
    try:
        content = runtime.read(EVENTS)
    except OSError as error:
        logger.error("the history of events in %s cannot be read: %s", runtime.path, error.strerror)  # noqa: TRY400
        return []
    entries = event_encoding.read(content or b"")
    if content and sum(len(each.ndjson) for each in entries) != len(content):
        logger.warning("the history of events in %s is damaged behind event %d", runtime.path, len(entries))
    return entries
