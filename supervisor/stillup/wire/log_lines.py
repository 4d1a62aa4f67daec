"""The log's one form, for the supervisor and its workers alike: time, level, who speaks, message.

As text a line is ``2026-11-28 15:50:21.351 INFO    1.2   message``: ``1.2`` is worker 2 of generation 1, ``-`` the
supervisor. A message of several lines has the others below it, each behind a bar, so that no line of somebody else's
can look like one of ours. As JSON it is one object.

Until a worker is ready its output goes by a pipe to the supervisor, which gives it this form: what the worker itself
logs is ``packed`` there, and everything else is output of the app's, a line each. The worker may pack what it likes: of
that the supervisor takes what a line can be about (``from_pipe``), and says itself whose line it is. What is printed is
never unpacked: it may be what a client has sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from stillup.wire.plain_text import escaped, escaped_json, escaped_lines, quoted

TEXT: Final = "text"
JSON: Final = "json"
JOURNAL: Final = "journal"
"""Text, whose time and level the journal keeps itself."""
SUPERVISOR: Final = "-"
"""Stands where a worker's name would."""
HOOK: Final = "hook"
"""Stands there for a program that is run around a rollout (``core.hooks``)."""
LONGEST: Final = 8 * 1024
"""Characters of a line of captured output; what is longer is more than one line."""
LONGEST_NAME: Final = 200
"""Characters of the name of a logger."""
MOST_FIELDS: Final = 16
"""Of a line that a worker has packed."""
MOST: Final = 2**53
"""No number in such a field is further from 0: those beyond it are no whole numbers to whoever reads them as floats."""
_MARK: Final = "\x1e"
"""Begins a line that is packed (ASCII's record separator): no text has it."""
_FIELD: Final = re.compile(r"[a-z][a-z0-9_]{0,40}")
"""A field's name, of a line that a worker has packed: no other can be one of the journal's."""
_OURS: Final = frozenset(
    {"at", "level", "logger", "message", "generation", "worker", "source", "event", "rollout", "pid"}
)
"""Names of fields that only the supervisor gives a line."""
_WHOSE: Final = frozenset({"generation", "worker", "source", "rollout"})
"""Those of them that say whose line it is, which an app's own JSON does not have, either."""

Level = Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
LEVELS: Final[Mapping[str, int]] = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
"""As numbers of Python's logging, and uvicorn's TRACE."""


class LogLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that is logged; its time is the writer's to say."""

    message: str
    level: str = "INFO"
    logger: str = ""
    """By which name it was logged; empty for captured output."""
    fields: dict[str, Any] = {}
    """What else there is to say of it, by names of JSON's."""


class _Packed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line on its way to the supervisor."""

    message: str
    level: Level = "INFO"
    logger: str = ""
    fields: dict[str, str | int] = {}


_decoder = msgspec.json.Decoder(_Packed)
_encoder = msgspec.json.Encoder()


def text(line: LogLine, at: str, worker: str = "") -> str:
    """One or more lines for people; ``at``: the time."""
    first = f"{at} {line.level:<7} {worker or SUPERVISOR:<5} "
    message = line.message
    if message.isprintable():
        return first + message
    begun, *more = quoted(message)
    return "\n".join([first + begun, *more])


def json(line: LogLine, at: str, worker: str = "") -> str:
    """One line for programs; ``at``: the time, in UTC.

    Captured output that is a JSON object is that object, with our word alone for whose it is, and with a time and a
    level if it has none.
    """
    who = speaker(worker)
    whole: dict[str, Any] = {"at": at, "level": line.level.lower(), **who}
    if line.logger:
        whole["logger"] = line.logger
    said = _object(line.message) if worker and not line.logger else None
    if said is None:
        whole |= {"message": line.message}
        whole |= {name: value for name, value in line.fields.items() if name not in whole}
    else:
        whole |= {name: value for name, value in said.items() if name not in _WHOSE} | who
    try:
        return escaped_json(_encoder.encode(whole).decode())
    except UnicodeEncodeError:  # half a surrogate, which no UTF-8 can say
        whole["message"] = escaped_lines(line.message)
        return escaped_json(_encoder.encode(whole).decode())


def speaker(worker: str) -> dict[str, Any]:
    """The fields that say whose line it is: a worker's, a hook's, or the supervisor's own."""
    if worker == HOOK:
        return {"source": HOOK}
    return {"generation": int(worker.partition(".")[0]), "worker": worker} if worker else {}


def _object(message: str) -> dict[str, Any] | None:
    if not (message.startswith("{") and message.endswith("}")):
        return None
    try:
        said = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def packed(line: LogLine) -> str:
    """A line for the supervisor, which ``from_pipe`` understands."""
    try:
        content = _encoder.encode(line)
    except UnicodeEncodeError:
        content = _encoder.encode(LogLine(escaped_lines(line.message), line.level, line.logger))
    return _MARK + content.decode()


def is_packed(output: bytes) -> bool:
    """Whether that is to be a packed line; it may be as long as it is."""
    return output.startswith(_MARK.encode())


def unmarked(printed: str) -> str:
    """What is printed, on its way to the supervisor: no line of it is a packed one there."""
    return printed.replace(_MARK, escaped(_MARK))


def from_pipe(output: str) -> LogLine | None:
    """A line that came by a worker's pipe: a packed one, or output of its app's; None if there is nothing in it."""
    if output.startswith(_MARK):
        try:
            said = _decoder.decode(output[1:])
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            pass  # of an app's own
        else:
            return LogLine(said.message, said.level, said.logger[:LONGEST_NAME], _taken(said.fields))
    return captured(output)


def _taken(fields: Mapping[str, str | int]) -> dict[str, Any]:
    """Of what a worker says that its line is about, what it may say."""
    taken: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _OURS or _FIELD.fullmatch(name) is None or len(taken) == MOST_FIELDS:
            continue
        if isinstance(value, str):
            taken[name] = value[:LONGEST]
        elif abs(value) <= MOST:
            taken[name] = value
    return taken


def captured(output: str) -> LogLine | None:
    """A line of what an app prints; None if there is nothing in it.

    A program that writes over its line shows the last of what it wrote (CR).
    """
    shown = output.rstrip("\r").rpartition("\r")[2].rstrip()
    return LogLine(shown[:LONGEST]) if shown else None
