"""The control API as a table: every operation, who may ask for it, what it takes and what it answers.

The supervisor's routes and the document at ``/v1/openapi.json`` are both made of this table, so they cannot differ.
No operation reads a body: none ever chooses code to run. Every error is a problem document (``problem_types``).
"""

from __future__ import annotations

from typing import Any, Final, Literal

from stillup.core.access import Role
from stillup.core.strategy import StrategyName
from stillup.wire import api_shapes
from stillup.wire.api_operation import (
    ALL_SOCKETS,
    JSON,
    NDJSON,
    OPEN_METRICS,
    PROMETHEUS,
    SSE,
    UNIX_SOCKETS,
    Operation,
    Parameter,
    ResponseShape,
)
from stillup.wire.event_feed import Event
from stillup.wire.history_view import RevisionView
from stillup.wire.series_view import SeriesView
from stillup.wire.trace_messages import TraceLine


def _json(what: str, shape: Any, location: str = "") -> ResponseShape:
    return ResponseShape(what, {JSON: shape}, location)


_ROLLOUT: Final = Parameter("id", "the rollout's number", int, place="path", required=True)
_SCALING: Final = Parameter("id", "the scaling's number", int, place="path", required=True)
_WAIT_ROLLOUT: Final = Parameter(
    "wait",
    "true: answer at the cut-over; probation: when the new generation has come through its probation; "
    "drained: when the old generation has left",
    Literal["true", "probation", "drained"],
)
_WAIT: Final = Parameter(
    "wait",
    "true: answer when so many serve, and those beyond drain; drained: when these have left",
    Literal["true", "drained"],
)
_HURRY: Final = Parameter("hurry", "whether older generations that drain end streaming answers at once", bool)
_FORCE: Final = Parameter("force", "whether to run a release that was rolled back before all the same", bool)
_TO: Final = Parameter("to", "the generation whose release it is to be; nothing is done if that serves", int, least=1)
_IF_CHANGED: Final = Parameter(
    "if_changed", "whether to do nothing if what serves is what would be brought: code, options, environment", bool
)
_STRATEGY: Final = Parameter(
    "strategy",
    "how the new generation comes, this once; what is not said here the configuration says",
    StrategyName,
)
_MAX_SURGE: Final = Parameter("max_surge", "of rolling: how many workers more than wanted may live", int, least=0)
_MAX_UNAVAILABLE: Final = Parameter(
    "max_unavailable", "of rolling: how many workers fewer than wanted may serve", int, least=0
)
_STANDBY: Final = Parameter(
    "standby", "seconds that the old workers are kept paused, for a rollback at once; not of rolling", int, least=0
)
_CANARY: Final = (
    Parameter("canary", "of canary: how many new workers are watched at first", int, least=1),
    Parameter("canary_percent", "of canary: whether that is of a hundred of those wanted", bool),
    Parameter("canary_time", "of canary: for how many seconds, before the rest comes", float),
    Parameter("canary_timeout", "of canary: the seconds after which it goes back, if it cannot be told", float),
    Parameter("min_requests", "of canary: how many requests either side has to have answered", int, least=1),
    Parameter("gated", "of canary: whether they are judged", bool),
)
_WORKERS: Final = Parameter("workers", "how many are wanted", int, required=True, least=1)
_NOW: Final = Parameter(
    "now", "true: end what is under way, and skip --stop-delay; asked for again it kills", Literal["true"]
)
_BEGUN: Final = _json("It is under way.", api_shapes.RolloutView, location="the rollout")
_SERVES: Final = _json("The new generation serves.", api_shapes.RolloutView, location="the rollout")
_ROLLOUT_FAILS: Final = (
    "not-found",
    "rollout-aborted",
    "rolled-back",
    "probation-failed",
    "superseded",
    "stopping",
    "unavailable",
)
"""Not found: with so many others meanwhile that the one that is waited for is forgotten."""

OPERATIONS: Final = (
    Operation(
        "status",
        "GET",
        "/v1/status",
        Role.VIEWER,
        "Show the whole service.",
        {200: _json("The service.", api_shapes.Status)},
        sockets=UNIX_SOCKETS,
    ),
    Operation(
        "generations",
        "GET",
        "/v1/generations",
        Role.VIEWER,
        "Show every generation with its workers, the oldest first.",
        {200: _json("The generations.", list[api_shapes.GenerationView])},
        sockets=UNIX_SOCKETS,
    ),
    Operation(
        "workers",
        "GET",
        "/v1/workers",
        Role.VIEWER,
        "Show every worker.",
        {200: _json("The workers.", list[api_shapes.WorkerView])},
        sockets=UNIX_SOCKETS,
    ),
    Operation(
        "listeners",
        "GET",
        "/v1/listeners",
        Role.VIEWER,
        "Show the listeners.",
        {200: _json("The listeners.", list[api_shapes.ListenerView])},
        sockets=UNIX_SOCKETS,
    ),
    Operation(
        "history",
        "GET",
        "/v1/history",
        Role.VIEWER,
        "Show the generations that were brought, or were to be, the newest first.",
        {200: _json("As far as rollouts are remembered.", list[RevisionView])},
        sockets=UNIX_SOCKETS,
    ),
    Operation(
        "series",
        "GET",
        "/v1/series",
        Role.VIEWER,
        "Show how the service has done in the last 15 minutes, a point for every 5 seconds.",
        {200: _json("As far as this supervisor's program has been there.", SeriesView)},
        sockets=UNIX_SOCKETS,
    ),
    Operation(
        "rollout",
        "GET",
        "/v1/rollouts/{id}",
        Role.VIEWER,
        "Show a rollout.",
        {200: _json("The rollout.", api_shapes.RolloutView)},
        (_ROLLOUT,),
        ("not-found",),
        sockets=UNIX_SOCKETS,
    ),
    Operation(
        "scaling",
        "GET",
        "/v1/scalings/{id}",
        Role.VIEWER,
        "Show a request for more or fewer workers.",
        {200: _json("The request.", api_shapes.ScalingView)},
        (_SCALING,),
        ("not-found",),
        sockets=UNIX_SOCKETS,
    ),
    Operation(
        "events",
        "GET",
        "/v1/events",
        Role.VIEWER,
        "Show what has happened, and with 'follow' what happens, as it happens.",
        {
            200: ResponseShape(
                "An event a line, or an event a message of an event stream (SSE).", {NDJSON: Event, SSE: None}
            )
        },
        (
            Parameter(
                "since", "only events with a higher number; Last-Event-ID (a header) goes before it", int, least=0
            ),
            Parameter("follow", "whether to go on with what happens; true by default for an event stream", bool),
        ),
        sockets=UNIX_SOCKETS,
    ),
    Operation(
        "whoami",
        "GET",
        "/v1/whoami",
        Role.NONE,
        "Show who the caller is by the kernel's word, and what that caller may do.",
        {200: _json("The caller.", api_shapes.Whoami)},
        sockets=UNIX_SOCKETS,
    ),
    Operation(
        "version",
        "GET",
        "/v1/version",
        Role.NONE,
        "Show the versions of stillup and of this API.",
        {200: _json("The versions.", api_shapes.Versions)},
        sockets=UNIX_SOCKETS,
    ),
    Operation(
        "openapi",
        "GET",
        "/v1/openapi.json",
        Role.NONE,
        "This document.",
        {200: _json("An OpenAPI 3.1 document.", dict[str, Any])},
        sockets=UNIX_SOCKETS,
    ),
    Operation(
        "metrics",
        "GET",
        "/metrics",
        Role.VIEWER,
        "Show what the service and its supervisor have counted, for Prometheus.",
        {200: ResponseShape("The metrics.", {PROMETHEUS: None, OPEN_METRICS: None})},
        problems=("unavailable",),
        sockets=ALL_SOCKETS,
    ),
    Operation(
        "livez",
        "GET",
        "/livez",
        Role.VIEWER,
        "Whether the supervisor lives.",
        {200: _json("It does.", api_shapes.LiveView)},
        sockets=ALL_SOCKETS,
    ),
    Operation(
        "readyz",
        "GET",
        "/readyz",
        Role.VIEWER,
        "Whether the service is to be sent requests: at least one worker serves.",
        {200: _json("It is.", api_shapes.ReadyView)},
        problems=("not-ready", "cordoned"),
        sockets=ALL_SOCKETS,
    ),
    Operation(
        "reload",
        "POST",
        "/v1/reload",
        Role.OPERATOR,
        "Put a new generation of what is on the disk now into service.",
        {200: _SERVES, 202: _BEGUN},
        (_WAIT_ROLLOUT, _IF_CHANGED, _FORCE, _HURRY, _STRATEGY, _MAX_SURGE, _MAX_UNAVAILABLE, *_CANARY, _STANDBY),
        ("release", "configuration", "rolled-back-before", *_ROLLOUT_FAILS),
    ),
    Operation(
        "rollback",
        "POST",
        "/v1/rollback",
        Role.OPERATOR,
        "Put the release before the one that serves back into service. Asked again it goes further back.",
        {200: _SERVES, 202: _BEGUN},
        (_WAIT_ROLLOUT, _TO),
        ("no-previous-release", "release-overwritten", "rollout-in-progress", "out-of-order", *_ROLLOUT_FAILS),
    ),
    Operation(
        "abort",
        "POST",
        "/v1/abort",
        Role.OPERATOR,
        "Call off the rollout that is before its cut-over; what serves goes on.",
        {200: _json("It is called off.", api_shapes.RolloutView, location="the rollout")},
        problems=("out-of-order",),
    ),
    Operation(
        "promote",
        "POST",
        "/v1/promote",
        Role.OPERATOR,
        "Pass the canary that is watched: the rest of its generation comes.",
        {200: _SERVES, 202: _json("It is passed.", api_shapes.RolloutView, location="the rollout")},
        (_WAIT_ROLLOUT,),
        ("out-of-order", *_ROLLOUT_FAILS),
    ),
    Operation(
        "scale",
        "POST",
        "/v1/scale",
        Role.OPERATOR,
        "Have more or fewer workers.",
        {
            200: _json("So many serve.", api_shapes.ScalingView, location="the request"),
            202: _json("It is under way.", api_shapes.ScalingView, location="the request"),
        },
        (_WORKERS, _WAIT),
        ("not-found", "rollout-in-progress", "scaling-aborted", "superseded", "stopping", "unavailable"),
    ),
    Operation(
        "cordon",
        "POST",
        "/v1/cordon",
        Role.OPERATOR,
        "Have no new clients sent: /readyz fails, answers say Connection: close, and everything is served on.",
        {200: _json("It is so.", api_shapes.Cordoned)},
        problems=("stopping",),
    ),
    Operation(
        "uncordon",
        "POST",
        "/v1/uncordon",
        Role.OPERATOR,
        "Have clients sent again.",
        {200: _json("It is so.", api_shapes.Cordoned)},
        problems=("stopping",),
    ),
    Operation(
        "stop",
        "POST",
        "/v1/stop",
        Role.ADMIN,
        "Finish what is under way and end the service; the connection ends with the supervisor.",
        {202: _json("It stops.", api_shapes.Stopping)},
        (_NOW,),
        problems=("out-of-order", "stopping"),
    ),
    Operation(
        "trace",
        "GET",
        "/v1/trace",
        Role.ADMIN,
        "Show every message on control.sock and handoff.sock as it comes, until the caller leaves.",
        {200: ResponseShape("The messages from now on.", {NDJSON: TraceLine})},
        problems=("unavailable",),
    ),
    Operation(
        "reexec",
        "POST",
        "/v1/supervisor/reexec",
        Role.ADMIN,
        "Put the stillup that is installed now in the place of the one that runs, after a trial.",
        {202: _json("It is being replaced.", api_shapes.Replacing)},
        problems=("out-of-order", "rollout-in-progress", "trial-failed", "unavailable", "stopping"),
    ),
)
