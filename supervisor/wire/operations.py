"""The control API as a table: every operation, who may ask for it, what it takes and what it answers.

The supervisor's routes and the document at ``/v1/openapi.json`` are both made of this table, so they cannot differ.
No operation reads a body: none ever chooses code to run.

1. Every answer carries ``Stillup-API: MAJOR.MINOR``. A caller may send the same: one that is newer than the supervisor
   is told so, with both versions, as is one that asks for a path of another major version.
2. Every error is a problem document (RFC 9457) whose type is stable. ``PROBLEMS`` says which status each has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, get_args

from supervisor.core.access import Role
from supervisor.errors import Refused, UsageError
from supervisor.wire import control
from supervisor.wire.events import Event
from supervisor.wire.trace import TraceLine

API: Final = (1, 0)
"""Major and minor version. The minor one grows with every addition, the major one never without a new path."""
API_HEADER: Final = "Stillup-API"

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
"""A JSON value a line."""
SSE: Final = "text/event-stream"
PROMETHEUS: Final = "text/plain"
OPEN_METRICS: Final = "application/openmetrics-text"

PROBLEMS: Final[Mapping[str, int]] = {
    "usage": 400,
    "client-too-new": 400,
    "not-permitted": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "out-of-order": 409,
    "rollout-in-progress": 409,
    "rollout-aborted": 409,
    "rolled-back": 409,
    "scaling-aborted": 409,
    "superseded": 409,
    "no-previous-release": 409,
    "release-overwritten": 409,
    "too-large": 413,
    "release": 422,
    "trial-failed": 422,
    "bug": 500,
    "stopping": 503,
    "not-ready": 503,
    "unavailable": 503,
}
"""The HTTP status of each problem."""

ANYWHERE: Final = ("usage", "client-too-new", "not-permitted", "too-large", "bug", "unavailable")
"""Problems that any operation may answer with."""


class Door(StrEnum):
    """Where an operation can be asked for."""

    CONTROL = "control.sock"
    OBSERVE = "observe.sock"
    """For monitoring: looks only, whatever the caller's role."""
    ADMIN = "--admin-bind"
    """TCP, for Prometheus and probes; the kernel does not say who calls, so nobody has a role here."""


SOCKETS: Final = frozenset({Door.CONTROL, Door.OBSERVE})
EVERYWHERE: Final = frozenset(Door)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A word of the path or of the query. ``type`` is ``int``, ``bool`` or a Literal of words."""

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
        words = self._words()
        if text in words:
            return text == "true" if self.type is bool else text
        if self.place == "path":
            raise Refused(f"nothing is known by the number '{text}'", code="not-found")
        known = "a number, such as 4" if self.type is int else " or ".join(f"'{word}'" for word in words)
        raise UsageError(f"{self.name}={text}: it is {known} ({self.what})")

    def _words(self) -> tuple[str, ...]:
        if self.type is int:
            return ()
        return ("true", "false") if self.type is bool else get_args(self.type)

    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        if self.type is int:
            least = {} if self.least is None else {"minimum": self.least}
            return {"type": "integer", "format": "int64", **least}
        return {"type": "boolean"} if self.type is bool else {"type": "string", "enum": list(self._words())}


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation answers with if it does what it was asked for: by media type, the shape of the body.

    A shape of None is text.
    """

    what: str
    shape: Mapping[str, Any]
    location: str = ""
    """What the ``Location`` header leads to."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table."""

    name: str
    method: Literal["GET", "POST"]
    path: str
    role: Role
    what: str
    answers: Mapping[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[str, ...] = ()
    """Beside those that may come ANYWHERE."""
    doors: frozenset[Door] = field(default=frozenset({Door.CONTROL}))

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


def _json(what: str, shape: Any, location: str = "") -> Answer:
    return Answer(what, {JSON: shape}, location)


_ROLLOUT: Final = Parameter("id", "the rollout's number", int, place="path", required=True)
_SCALING: Final = Parameter("id", "the scaling's number", int, place="path", required=True)
_WAIT_ROLLOUT: Final = Parameter(
    "wait",
    "true: answer at the cut-over; drained: when the old generation has left, too",
    Literal["true", "drained"],
)
_WAIT: Final = Parameter("wait", "true: answer when so many serve, and whoever is beyond drains", Literal["true"])
_WORKERS: Final = Parameter("workers", "how many are wanted", int, required=True, least=1)
_BEGUN: Final = _json("It is under way.", control.RolloutView, location="the rollout")
_SERVES: Final = _json("The new generation serves.", control.RolloutView, location="the rollout")
_ROLLOUT_FAILS: Final = ("not-found", "rollout-aborted", "rolled-back", "superseded", "stopping", "unavailable")
"""Not found: with so many others meanwhile that the one that is waited for is forgotten."""

OPERATIONS: Final = (
    Operation(
        "status",
        "GET",
        "/v1/status",
        Role.VIEWER,
        "Show the whole service.",
        {200: _json("The service.", control.Status)},
        doors=SOCKETS,
    ),
    Operation(
        "generations",
        "GET",
        "/v1/generations",
        Role.VIEWER,
        "Show every generation with its workers, the oldest first.",
        {200: _json("The generations.", list[control.GenerationView])},
        doors=SOCKETS,
    ),
    Operation(
        "workers",
        "GET",
        "/v1/workers",
        Role.VIEWER,
        "Show every worker.",
        {200: _json("The workers.", list[control.WorkerView])},
        doors=SOCKETS,
    ),
    Operation(
        "listeners",
        "GET",
        "/v1/listeners",
        Role.VIEWER,
        "Show the listeners.",
        {200: _json("The listeners.", list[control.ListenerView])},
        doors=SOCKETS,
    ),
    Operation(
        "rollout",
        "GET",
        "/v1/rollouts/{id}",
        Role.VIEWER,
        "Show a rollout.",
        {200: _json("The rollout.", control.RolloutView)},
        (_ROLLOUT,),
        ("not-found",),
        doors=SOCKETS,
    ),
    Operation(
        "scaling",
        "GET",
        "/v1/scalings/{id}",
        Role.VIEWER,
        "Show a request for more or fewer workers.",
        {200: _json("The request.", control.ScalingView)},
        (_SCALING,),
        ("not-found",),
        doors=SOCKETS,
    ),
    Operation(
        "events",
        "GET",
        "/v1/events",
        Role.VIEWER,
        "Show what has happened, and with 'follow' what happens, as it happens.",
        {200: Answer("An event a line, or an event a message of an event stream (SSE).", {NDJSON: Event, SSE: None})},
        (
            Parameter(
                "since", "only events with a higher number; Last-Event-ID (a header) goes before it", int, least=0
            ),
            Parameter("follow", "whether to go on with what happens; true by default for an event stream", bool),
        ),
        doors=SOCKETS,
    ),
    Operation(
        "whoami",
        "GET",
        "/v1/whoami",
        Role.NONE,
        "Show who the caller is by the kernel's word, and what he may do.",
        {200: _json("The caller.", control.Whoami)},
        doors=SOCKETS,
    ),
    Operation(
        "version",
        "GET",
        "/v1/version",
        Role.NONE,
        "Show the versions of stillup and of this API.",
        {200: _json("The versions.", control.Versions)},
        doors=SOCKETS,
    ),
    Operation(
        "openapi",
        "GET",
        "/v1/openapi.json",
        Role.NONE,
        "This document.",
        {200: _json("An OpenAPI 3.1 document.", dict[str, Any])},
        doors=SOCKETS,
    ),
    Operation(
        "metrics",
        "GET",
        "/metrics",
        Role.VIEWER,
        "Show what the service and its supervisor have counted, for Prometheus.",
        {200: Answer("The metrics.", {PROMETHEUS: None, OPEN_METRICS: None})},
        problems=("unavailable",),
        doors=EVERYWHERE,
    ),
    Operation(
        "livez",
        "GET",
        "/livez",
        Role.VIEWER,
        "Whether the supervisor lives.",
        {200: _json("It does.", control.Live)},
        doors=EVERYWHERE,
    ),
    Operation(
        "readyz",
        "GET",
        "/readyz",
        Role.VIEWER,
        "Whether the service serves.",
        {200: _json("It does.", control.Ready)},
        problems=("not-ready",),
        doors=EVERYWHERE,
    ),
    Operation(
        "reload",
        "POST",
        "/v1/reload",
        Role.OPERATOR,
        "Put a new generation of what is on the disk now into service.",
        {200: _SERVES, 202: _BEGUN},
        (_WAIT_ROLLOUT,),
        ("release", *_ROLLOUT_FAILS),
    ),
    Operation(
        "rollback",
        "POST",
        "/v1/rollback",
        Role.OPERATOR,
        "Put the release before the one that serves back into service. Asked again it goes further back.",
        {200: _SERVES, 202: _BEGUN},
        (_WAIT_ROLLOUT,),
        ("no-previous-release", "release-overwritten", "rollout-in-progress", "out-of-order", *_ROLLOUT_FAILS),
    ),
    Operation(
        "abort",
        "POST",
        "/v1/abort",
        Role.OPERATOR,
        "Call off the rollout that is before its cut-over; what serves goes on.",
        {200: _json("It is called off.", control.RolloutView, location="the rollout")},
        problems=("out-of-order",),
    ),
    Operation(
        "scale",
        "POST",
        "/v1/scale",
        Role.OPERATOR,
        "Have more or fewer workers.",
        {
            200: _json("So many serve.", control.ScalingView, location="the request"),
            202: _json("It is under way.", control.ScalingView, location="the request"),
        },
        (_WORKERS, _WAIT),
        ("not-found", "rollout-in-progress", "scaling-aborted", "superseded", "stopping", "unavailable"),
    ),
    Operation(
        "stop",
        "POST",
        "/v1/stop",
        Role.ADMIN,
        "Finish what is under way and end the service; the connection ends with the supervisor.",
        {202: _json("It stops.", control.Stopping)},
        problems=("out-of-order", "stopping"),
    ),
    Operation(
        "trace",
        "GET",
        "/v1/trace",
        Role.ADMIN,
        "Show every message on control.sock and handoff.sock as it comes, until the caller leaves.",
        {200: Answer("The messages from now on.", {NDJSON: TraceLine})},
        problems=("unavailable",),
    ),
    Operation(
        "reexec",
        "POST",
        "/v1/supervisor/reexec",
        Role.ADMIN,
        "Put the stillup that is installed now in the place of the one that runs, after a trial.",
        {202: _json("It is being replaced.", control.Replacing)},
        problems=("out-of-order", "rollout-in-progress", "trial-failed", "unavailable", "stopping"),
    ),
)


def version(api: tuple[int, int] = API) -> str:
    """How a version is written: ``1.0``."""
    return f"{api[0]}.{api[1]}"


def check_version(said: str, supervisor: str) -> None:
    """See that a caller's version of the API is one that is spoken here.

    Args:
        said: its ``Stillup-API`` header.
        supervisor: the version of stillup that answers.

    Raises:
        UsageError: it is no version.
        Refused: ``client-too-new``.
    """
    match = re.fullmatch(r"([0-9]{1,6})\.([0-9]{1,6})", said)
    if match is None:
        raise UsageError(f"{API_HEADER}: '{said}' is no version; it is such as {version()}")
    if (int(match[1]), int(match[2])) > API:
        raise _too_new(f"API {said}", supervisor)


def check_path(path: str, supervisor: str) -> None:
    """See that a path is not of a later major version.

    Raises:
        Refused: ``client-too-new``.
    """
    match = re.match(r"/v([0-9]{1,6})(/|$)", path)
    if match is not None and int(match[1]) > API[0]:
        raise _too_new(f"API {match[1]}", supervisor)


def _too_new(client: str, supervisor: str) -> Refused:
    message = f"the client speaks {client}, this supervisor (stillup {supervisor}) API {version()} at most"
    return Refused(f"{message}; 'stillup supervisor reexec' runs the one that is installed now", code="client-too-new")
