"""An event as it is kept and sent: one line of JSON, in the history's file, as NDJSON and in an event stream (SSE).

What another version of the supervisor wrote is passed on as it is, also kinds that are not known here.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Annotated

import msgspec

from stillup.errors import PeerError
from stillup.wire.event_envelope import Envelope
from stillup.wire.event_feed import Event


class AnyEvent(msgspec.Struct, frozen=True):
    """What every event has, whatever its kind."""

    kind: Annotated[str, msgspec.Meta(pattern=r"^[a-z-]+\.[a-z-]+\Z", max_length=64)]
    seq: Annotated[int, msgspec.Meta(ge=0)]
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    monotonic: float
    text: str


class Entry(msgspec.Struct, frozen=True):
    """One event."""

    seq: int
    kind: str
    json: bytes
    """Without the line's end."""

    @property
    def ndjson(self) -> bytes:
        """It as a line."""
        return self.json + b"\n"

    @property
    def sse(self) -> bytes:
        """It as a message of an event stream (WHATWG HTML, 9.2)."""
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (self.seq, self.kind.encode(), self.json)


_ANY = msgspec.json.Decoder(AnyEvent)


def entry(event: Envelope) -> Entry:
    """An event of ours."""
    return Entry(event.seq, str(event.__struct_config__.tag), msgspec.json.encode(event))


def parse(line: bytes) -> AnyEvent:
    """Read one line, as far as all events are alike.

    Raises:
        PeerError: it is no event.
    """
    try:
        line.decode()  # msgspec looks only at the text that it keeps
        return _ANY.decode(line)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise PeerError(f"the supervisor told an event that makes no sense here: {error}") from error


@cache
def _decoder() -> msgspec.json.Decoder[Event]:
    """Made when the first event is read: that takes 5 ms, and a supervisor reads none."""
    return msgspec.json.Decoder(Event)


def decode(line: bytes) -> Event | AnyEvent:
    """Read one line as what it is, or as far as it can be understood if another version has written it.

    Raises:
        PeerError: it is no event.
    """
    event = parse(line)
    try:
        return _decoder().decode(line)
    except msgspec.ValidationError:
        return event


def read(content: bytes) -> list[Entry]:
    """The events in a history's file: those before the first line that is torn, no event, or not the next one."""
    entries: list[Entry] = []
    for line in content.split(b"\n")[:-1]:
        try:
            event = parse(line)
        except PeerError:
            break
        if b"\r" in line or event.seq < 1 or (entries and event.seq != entries[-1].seq + 1):
            break
        entries.append(Entry(event.seq, event.kind, line))
    return entries
