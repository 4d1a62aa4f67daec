"""What a row of the control API's table is made of: its sockets, parameters and answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Literal, get_args

import msgspec

from stillup.core.access import Role
from stillup.errors import Refused, UsageError

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
"""A JSON value a line."""
SSE: Final = "text/event-stream"
PROMETHEUS: Final = "text/plain"
OPEN_METRICS: Final = "application/openmetrics-text"


_NUMBERS: Final = (int, float)


class ApiSocket(StrEnum):
    """A listening socket of the control API."""

    CONTROL = "control.sock"
    OBSERVE = "observe.sock"
    """For monitoring: looks only, whatever the caller's role."""
    ADMIN = "--admin-bind"
    """TCP, for Prometheus and probes; the kernel does not say who calls, so there are no roles here."""


UNIX_SOCKETS: Final = frozenset({ApiSocket.CONTROL, ApiSocket.OBSERVE})
ALL_SOCKETS: Final = frozenset(ApiSocket)


class Parameter(msgspec.Struct, frozen=True):
    """A word of the path or of the query. ``type`` is ``int``, ``float``, ``bool`` or a Literal of words."""

    name: str
    what: str
    type: Any
    place: Literal["query", "path"] = "query"
    required: bool = False
    least: int | None = None

    def read(self, text: str) -> Any:
        """The value that a text stands for.

        Raises:
            UsageError: it stands for none; a path's: Refused, ``not-found``.
        """
        # int() would also take "1_000", " 3 " and the digits of every script, and no length is refused by it in time.
        if self.type is int and re.fullmatch(r"-?[0-9]{1,18}", text):
            return int(text)
        if self.type is float and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
            return float(text)
        words = self._words()
        if text in words:
            return text == "true" if self.type is bool else text
        if self.place == "path":
            raise Refused(f"nothing is known by the number '{text}'", code="not-found")
        known = "a number, such as 4" if self.type in _NUMBERS else " or ".join(f"'{word}'" for word in words)
        raise UsageError(f"{self.name}={text}: it is {known} ({self.what})")

    def _words(self) -> tuple[str, ...]:
        if self.type in _NUMBERS:
            return ()
        return ("true", "false") if self.type is bool else get_args(self.type)

    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        if self.type is int:
            least = {} if self.least is None else {"minimum": self.least}
            return {"type": "integer", "format": "int64", **least}
        if self.type is float:
            return {"type": "number", "minimum": 0}
        return {"type": "boolean"} if self.type is bool else {"type": "string", "enum": list(self._words())}


class ResponseShape(msgspec.Struct, frozen=True):
    """What an operation answers with if it does what it was asked for: by media type, the shape of the body.

    A shape of None is text.
    """

    what: str
    shape: Mapping[str, Any]
    location: str = ""
    """What the ``Location`` header leads to."""


class Operation(msgspec.Struct, frozen=True):
    """One row of the table."""

    name: str
    method: Literal["GET", "POST"]
    path: str
    role: Role
    what: str
    answers: Mapping[int, ResponseShape]
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[str, ...] = ()
    """Codes beside those that may come ``ANYWHERE`` (``problem_types``)."""
    sockets: frozenset[ApiSocket] = msgspec.field(default=frozenset({ApiSocket.CONTROL}))
    """Where it can be asked for."""

    def read(self, path: Mapping[str, str], query: Mapping[str, list[str]]) -> dict[str, Any]:
        """The values of its parameters; those that were not given are left out.

        Raises:
            UsageError: one is missing, given twice, unknown or has no such value.
            Refused: ``not-found``, for a path that leads nowhere.
        """
        values: dict[str, Any] = {}
        given = {**query, **{name: [text] for name, text in path.items()}}
        known = {parameter.name: parameter for parameter in self.parameters}
        for name, texts in given.items():
            parameter = known.get(name)
            if parameter is None:
                takes = ", ".join(f"'{one}'" for one in known) or "none"
                raise UsageError(f"{self.method} {self.path} takes no parameter '{name}' (it takes {takes})")
            if len(texts) > 1:
                raise UsageError(f"{name} was given {len(texts)} times")
            values[name] = parameter.read(texts[0])
        for parameter in self.parameters:
            if parameter.required and parameter.name not in values:
                raise UsageError(f"{self.method} {self.path} needs {parameter.name}: {parameter.what}")
        return values
