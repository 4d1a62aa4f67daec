"""What a worker measures of itself: one value, from the worker's event loop to ``GET /v1/workers``.

The worker builds it, ``Report`` carries it, ``Worker.figures`` keeps it, and ``WorkerView`` shows every field of it. A
new figure is a field with a default here, the place where the worker measures it, and the place where it is rendered;
in ``/metrics`` it is a row of ``GAUGES``.

A worker may say anything: ``plausible`` is what is kept of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from stillup.core.crossing import LONGEST_PAUSE, Crossed, ResumeRefusal
from stillup.core.drain import ANSWERING, WITH_OWN_TIME, ConnectionClass
from stillup.core.values import replace

BACKGROUND: Final = "background"
"""What workers call tasks that outlive their answers."""
MOST: Final = 2**53
"""No count is larger: those beyond it are no whole numbers to whoever reads them as floats."""
THREADS_LIMIT: Final = 256
"""Characters of what a worker says of threads."""
LONGEST: Final = 1e9
"""Seconds; nothing has lasted longer."""
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds that bound the buckets of durations and lags; one more bucket has what is longer than the last."""
LAG_TOLD: Final = 0.05
"""Seconds: from so much on it is worth a word, and so is its end."""
CPU_TOLD: Final = 0.02
"""Seconds of it since the last report; likewise."""
MEMORY_TOLD: Final = 2**20
"""Bytes by which it has changed; likewise."""
_CLASSES: Final = frozenset({*map(str, ConnectionClass), BACKGROUND})
_REFUSALS: Final = frozenset(map(str, ResumeRefusal))


class Leadership(msgspec.Struct, frozen=True):
    """What a worker says of leading (``core.leader``)."""

    wants: bool = False
    """Whether the app waits to lead here, or does."""
    leads: bool = False
    """Whether it does: it was told to, and holds the lock."""
    let_go: int = 0
    """The last term that it has let go."""


class Answers(msgspec.Struct, frozen=True):
    """What came of a worker's requests in its whole life, by which one release is compared with another.

    Empty of an earlier stillup in a release's environment.
    """

    errors: int = 0
    """Answers of 500 and more, without those that the server gave in the app's place."""
    durations: tuple[int, ...] = ()
    """How many answers of the app's began within each of BOUNDS, and how many later; together they are all of them."""
    lags: tuple[int, ...] = ()
    """The same of how late heartbeats came, of which there is about one a second."""

    @property
    def requests(self) -> int:
        """How many the app has answered."""
        return sum(self.durations)


class WorkerFigures(msgspec.Struct, frozen=True):
    """The figures of one worker, as of its newest report."""

    classes: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Open connections by class; ``background`` are requests whose answer is out and whose task still runs."""
    requests: int = 0
    """Answered so far."""
    oldest: Mapping[str, float] = msgspec.field(default_factory=dict)
    """While it drains: for each class, the seconds that its oldest connection has been of it."""
    crossed: Crossed = msgspec.field(default_factory=Crossed)
    """Of its whole life."""
    cut: Mapping[str, int] = msgspec.field(default_factory=dict)
    """By class, what its drain has ended before it was done."""
    threads: str = ""
    """Threads of the app's that keep the process from ending when it has nothing else to do, and where they are.

    The app's words: empty for viewers.
    """
    leadership: Leadership = Leadership()
    answers: Answers = Answers()
    at_rest: bool = False
    """Whether it is paused, and nothing of what it held is left."""
    refused: Mapping[str, int] = msgspec.field(default_factory=dict)
    """By reason (``core.crossing.ResumeRefusal``), WebSockets that were handed over and did not go on."""
    cpu: float = 0.0
    """Seconds of processor time that the process has used so far, those of the kernel for it included."""
    memory: int = 0
    """Bytes of it in memory, pages that it shares included; 0 if that is not known."""
    lag: float = 0.0
    """Seconds by which the newest heartbeat came late: so long the event loop was held up."""


class WorkerGauge(msgspec.Struct, frozen=True):
    """A figure in ``/metrics``: what all workers say together."""

    name: str
    help: str
    of: Callable[[WorkerFigures], Mapping[str, float]]
    """One worker's part, by the label's value."""
    label: str = ""
    """Without one the parts are added up, whatever they are called."""
    values: Collection[str] = ()
    """The label's values that are always there."""


GAUGES: Final = (
    WorkerGauge(
        "stillup_http_requests_in_progress",
        "Requests that are being answered.",
        lambda figures: {kind: figures.classes.get(kind, 0) for kind in ANSWERING},
    ),
    WorkerGauge(
        "stillup_connections",
        "Open connections by what they are doing; background: tasks that outlive their answers.",
        lambda figures: figures.classes,
        label="class",
        values=(*map(str, ConnectionClass), BACKGROUND),
    ),
    WorkerGauge(
        "stillup_workers_resident_memory_bytes",
        "Memory of all workers; pages that they share are counted in each.",
        lambda figures: {"": figures.memory},
    ),
)


def tell_more(now: WorkerFigures, before: WorkerFigures) -> bool:
    """Whether it has served somebody in between, or may have; that the process has lived on is nothing.

    What goes on in a stream, or on a WebSocket, is in no figure.
    """
    if not WITH_OWN_TIME.isdisjoint(now.classes):
        return True
    served = [
        (one.classes, one.requests, one.crossed, one.cut, one.refused, one.answers.errors, one.answers.durations)
        for one in (now, before)
    ]
    return served[0] != served[1]


def is_worth_a_word(now: WorkerFigures, before: WorkerFigures) -> bool:
    """Whether a worker has something to tell that was not so in its last report, beside that it lives on."""
    others = [(one.threads, one.leadership, one.at_rest) for one in (now, before)]
    return (
        tell_more(now, before)
        or others[0] != others[1]
        or max(now.lag, before.lag) >= LAG_TOLD
        or now.cpu - before.cpu >= CPU_TOLD
        or abs(now.memory - before.memory) >= MEMORY_TOLD
    )


def plausible(said: WorkerFigures, before: WorkerFigures) -> WorkerFigures:
    """What is kept of a report: classes that there are, numbers that can be, and counts that never fall.

    Args:
        said: what the worker says.
        before: what was kept of it until now.
    """
    was, now = before.crossed, said.crossed
    return WorkerFigures(
        classes={name: _counted(number) for name, number in said.classes.items() if name in _CLASSES},
        requests=_counted(said.requests, before.requests),
        oldest={name: _lasted(seconds, LONGEST) for name, seconds in said.oldest.items() if name in _CLASSES},
        crossed=Crossed(
            given=_counted(now.given, was.given),
            adopted=_counted(now.adopted, was.adopted),
            lost=_counted(now.lost, was.lost),
            closed=_counted(now.closed, was.closed),
            told_to_close=_counted(now.told_to_close, was.told_to_close),
            longest=max(was.longest, _lasted(now.longest, LONGEST_PAUSE)),
            sessions_given=_counted(now.sessions_given, was.sessions_given),
            sessions_adopted=_counted(now.sessions_adopted, was.sessions_adopted),
            sessions_refused=_counted(now.sessions_refused, was.sessions_refused),
        ),
        cut={name: _counted(number, before.cut.get(name, 0)) for name, number in _known(said.cut, before.cut)},
        refused={
            name: _counted(number, before.refused.get(name, 0))
            for name, number in {**before.refused, **said.refused}.items()
            if name in _REFUSALS
        },
        threads=(before.threads or said.threads)[:THREADS_LIMIT],
        leadership=replace(said.leadership, let_go=_counted(said.leadership.let_go, before.leadership.let_go)),
        answers=Answers(
            errors=_counted(said.answers.errors, before.answers.errors),
            durations=_each_counted(said.answers.durations, before.answers.durations),
            lags=_each_counted(said.answers.lags, before.answers.lags),
        ),
        at_rest=said.at_rest,
        cpu=max(before.cpu, _lasted(said.cpu, LONGEST)),
        memory=_counted(said.memory),
        lag=_lasted(said.lag, LONGEST),
    )


def _known(said: Mapping[str, int], before: Mapping[str, int]) -> list[tuple[str, int]]:
    """Those of the classes that there are."""
    return [(name, number) for name, number in {**before, **said}.items() if name in _CLASSES]


def _counted(number: int, before: int = 0) -> int:
    """A count, or what it was if it is none."""
    return number if before <= number <= MOST else before


def _each_counted(said: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    """Buckets, or what they were if those are none."""
    if len(said) != len(BOUNDS) + 1:
        return before
    return tuple(_counted(now, was) for now, was in zip(said, before or (0,) * len(said), strict=True))


def _lasted(seconds: float, most: float) -> float:
    return min(max(0.0, seconds), most) if math.isfinite(seconds) else 0.0
