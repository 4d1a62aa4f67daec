"""What every event has, whatever has happened."""

from __future__ import annotations

import string
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final

import msgspec

from stillup.core.amounts import amount


class _Line(string.Formatter):
    """``{moved:connection}`` is "1 connection", or "2 connections"; ``{died:has|have}`` names both forms."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, int) and format_spec[:1].isalpha():
            return amount(value, *format_spec.split("|"))
        return str(super().format_field(value, format_spec))


_LINE: Final = _Line()


def filled(line: str, data: Mapping[str, object]) -> str:
    """A line with its fields filled in."""
    return _LINE.vformat(line, (), data)


class Envelope(msgspec.Struct, frozen=True, tag_field="kind"):
    """What every event has, beside its ``kind``."""

    level: ClassVar[str] = "INFO"
    """How loud it is in the log."""
    line: ClassVar[str] = ""
    """How it reads: ``text`` with its fields left open."""

    seq: int
    """1, 2, 3 ..."""
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    """When, by the wall clock: RFC 3339, UTC, with microseconds."""
    monotonic: float
    """When, by the host's monotonic clock, in seconds: for the time between two events of one boot of the host."""
    text: str
    """The event as a line for people."""

    @classmethod
    def reads(cls, data: Mapping[str, object]) -> str:
        return filled(cls.line, data)

    def loudness(self) -> str:
        return self.level
