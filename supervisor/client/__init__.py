"""PROCESS 3: what people and tools hold in their hands. The ``stillup`` command is the first user of ``Client``.

Deploy from a script, by the runtime directory of the service (``stillup ls`` shows it)::

    from supervisor.client import Client, ProblemError

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
    ├── NotRunningError    nobody answers in that directory
    ├── TimedOutError      somebody is there and does not answer in time
    ├── ProblemError       the supervisor says no; ``code`` is a stable word, such as ``rollout-aborted``
    └── PeerError          what it says makes no sense here
"""

from __future__ import annotations

from supervisor.client.find import find
from supervisor.client.http import Client, NotRunningError, ProblemError, Stream, TimedOutError, Wait
from supervisor.errors import PeerError, StillupError
from supervisor.wire.control import (
    CrossingView,
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
from supervisor.wire.entry import AnyEvent
from supervisor.wire.events import Event, FeedGap
from supervisor.wire.trace import TracedMessage, TraceGap, TraceLine

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
    "VacancyView",
    "Versions",
    "Wait",
    "Whoami",
    "WorkerView",
    "find",
]
