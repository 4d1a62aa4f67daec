"""What an engine is given where nothing is to be real."""

from __future__ import annotations

from typing import Final, Protocol

from stillup.core.commands import Command
from stillup.core.model import Fleet
from stillup.daemon.loop.engine import Engine, FleetWriter
from stillup.daemon.loop.event_queue import EventQueue, RecordDisk


class _NoRecordWriter:
    async def save(self, _: Fleet, *, asked: bool) -> str:
        return ""

    async def caught_up(self, _: float) -> bool:
        return True


class _Effects:
    def perform(self, _: Command) -> None:
        pass


RECORD_WRITER: Final = _NoRecordWriter()
"""Everything is on record."""
EFFECTS: Final = _Effects()
"""Nothing is performed."""


class _Writer(FleetWriter, RecordDisk, Protocol):
    """What a RecordWriter is to an engine and to its queue."""


def engine_of(fleet: Fleet, writer: _Writer = RECORD_WRITER) -> Engine:
    """An engine with a queue of its own."""
    return Engine(fleet, EventQueue(writer), writer)
