"""PROCESS 3: the client of the control API, and the ``stillup`` command, which is made of it.

Deploy from a script, by the runtime directory of the service (``stillup ls`` shows it)::

    from stillup.client import Client, ProblemError

    service = Client("/run/stillup/shop")
    try:
        rollout = service.reload(wait="cut-over")
    except ProblemError as error:
        print(f"kept the old release: {error}")
    else:
        print(f"generation {rollout.generation} serves {rollout.release}")

Every call is one request on a connection of its own, so a Client may be shared by threads. Answers are frozen msgspec
structs. What goes wrong is one of::

    StillupError
    ├── NotRunningError    no supervisor answers in that directory
    ├── UnreachableError   ssh does not reach the host that it is on
    ├── TimedOutError      a supervisor is there and does not answer in time
    ├── ProblemError       the supervisor says no; ``code`` is a stable word, such as ``rollout-aborted``
    └── PeerError          what it says makes no sense here
"""

from __future__ import annotations

from stillup.client.client_errors import NotRunningError, ProblemError, TimedOutError, UnreachableError
from stillup.client.control_client import Client, Wait
from stillup.client.line_stream import Stream
from stillup.client.service_lookup import find
from stillup.errors import PeerError, StillupError
from stillup.wire.api_shapes import (
    FailureView,
    GenerationView,
    ListenerView,
    Problem,
    RolloutView,
    ScalingView,
    Status,
    VacancyView,
    Versions,
    Whoami,
    WorkerView,
)
from stillup.wire.crossing_view import CrossingView
from stillup.wire.event_encoding import AnyEvent
from stillup.wire.event_feed import Event, FeedGap
from stillup.wire.trace_messages import TracedMessage, TraceGap, TraceLine

__all__ = [
    "AnyEvent",
    "Client",
    "CrossingView",
    "Event",
    "FailureView",
    "FeedGap",
    "GenerationView",
    "ListenerView",
    "NotRunningError",
    "PeerError",
    "Problem",
    "ProblemError",
    "RolloutView",
    "ScalingView",
    "Status",
    "StillupError",
    "Stream",
    "TimedOutError",
    "TraceGap",
    "TraceLine",
    "TracedMessage",
    "UnreachableError",
    "VacancyView",
    "Versions",
    "Wait",
    "Whoami",
    "WorkerView",
    "find",
]
