"""What a worker counts, and where: cells of 64 bits in a file that it shares with the supervisor.

1. A cell has one writer, the worker's event loop; whoever reads may do so at any time, since an aligned cell is stored
   whole. Nothing is sent and nothing flushed, so that a worker that is killed leaves all that it had counted.
2. But for the gauges, a cell only grows: those of many workers, living and dead, add up to counters that never fall.
3. Cells are only ever added. One that changes its meaning, or its place, needs a new LAYOUT.
4. A worker can write anything there. ``understood`` is what counts: a cell that falls, or is beyond what can be, counts
   as it did before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from stillup.core.crossing import ResumeRefusal
from stillup.core.fleet_changes import FleetChanges, Phase
from stillup.core.values import replace
from stillup.core.worker_figures import BOUNDS, Answers
from stillup.errors import PeerError

LAYOUT: Final = 1
"""What stands in the first cell of a file that a worker has taken; a supervisor reads no other."""
SIZE: Final = 4096
"""Bytes of the file: one page."""
CELL: Final = 8
"""Bytes of a cell, in the machine's own order."""
Cells: TypeAlias = list[int] | memoryview
"""Cells to count in: shared ones are a memoryview of format Q."""
SECOND: Final = 1_000_000_000
"""Durations are counted in nanoseconds."""


class Histogram(msgspec.Struct, frozen=True):
    """Where one stands: a cell for each bound, one for what is beyond the last, and one for the sum."""

    first: int
    bounds: tuple[float, ...]
    """Seconds; each takes what is as long, too."""

    @property
    def beyond(self) -> int:
        """The cell of what is longer than the last bound."""
        return self.first + len(self.bounds)

    @property
    def sum(self) -> int:
        """The cell of the sum, in nanoseconds."""
        return self.beyond + 1

    def observe(self, cells: Cells, seconds: float) -> None:
        """Count one duration."""
        cells[self.first + bisect_left(self.bounds, seconds)] += 1
        cells[self.sum] += max(0, int(seconds * SECOND))

    def count(self, cells: Sequence[int]) -> int:
        """How many were counted."""
        return sum(cells[self.first : self.sum])

    def cumulative(self, cells: Sequence[int]) -> list[tuple[str, int]]:
        """The buckets as Prometheus has them: each with all that is shorter."""
        total, found = 0, []
        for place, bound in enumerate((*self.bounds, float("inf"))):
            total += cells[self.first + place]
            found.append(("+Inf" if place == len(self.bounds) else str(bound), total))
        return found

    def seconds(self, cells: Sequence[int]) -> float:
        """The sum."""
        return cells[self.sum] / SECOND


# The header, of which the supervisor writes the second and third cell

OF_LAYOUT: Final = 0
OF_PID: Final = 1
OF_START: Final = 2
"""Clock ticks from the host's start to the process's: with the pid, the process's identity."""

# What a worker counts

CUT_OFF: Final = 3
"""Answers that began, and whose connection ended before they did."""
SENT: Final = 4
"""Bytes of the bodies of answers, as the app, or uvicorn in its place, gave them."""
RECEIVED: Final = 5
"""Bytes of the bodies of requests, as the app took them."""
GIVEN: Final = 6
"""This and the next three are those of ``core.crossing``."""
ADOPTED: Final = 7
LOST: Final = 8
CLOSED: Final = 9
LAG: Final = 10
"""A gauge: nanoseconds by which the newest heartbeat came late."""
ANSWERS_UNDER_CORDON: Final = 11
"""Answers that said ``Connection: close`` since the service was cordoned."""
CORDONED: Final = 12
"""A gauge: 1 while that is so."""
ENDED_BY_ANSWER: Final = 13
"""Connections that ended in a drain whose answers said ``Connection: close`` (``core.crossing``)."""
UNAVAILABLE: Final = 14
"""Answers 503 that uvicorn gave at once, in the app's place, at --limit-concurrency; they are among the others, too."""
LAGS: Final = Histogram(16, BOUNDS)
"""By how much each heartbeat came late."""
DURATIONS: Final = LAGS.bounds
"""Seconds that bound the buckets of how long requests take."""
ANSWERS: Final = 32
"""The first cell of the first class of answers; each has PER_CLASS of them."""
PER_CLASS: Final = 16
CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx", "aborted")
"""Of answers, by their status; the last are those that did not come to their end."""
ABORTED: Final = len(CLASSES)
"""As if it were a status of six hundred and something."""
REFUSED: Final = 128
"""The first cell of the sessions that did not go on: one for each member of ``ResumeRefusal``, in their order."""
SESSION_BYTES: Final = 144
"""Bytes of what travelled beside the sessions that were given."""
SESSIONS_GIVEN: Final = 145
"""Sessions among what was given, and those among what was adopted."""
SESSIONS_ADOPTED: Final = 146
CELLS: Final = 160
_BEFORE: Final = 128
"""As many as there were before there were sessions."""
OF_DEVICE: Final = 510
"""This cell and the next are in the supervisor's own copies alone: device and inode of the memory that a worker has."""
OF_INODE: Final = 511


def refused(reason: str) -> int:
    """The cell of the sessions that did not go on for that reason."""
    return REFUSED + list(ResumeRefusal).index(ResumeRefusal(reason))


def answers(status: str) -> Histogram:
    """How long the requests took that were answered with such a status."""
    return Histogram(ANSWERS + PER_CLASS * CLASSES.index(status), DURATIONS)


def answers_of_app(cells: Cells) -> Answers:
    """What a worker's app has answered, with which status and how soon; 101 and the like are no answers yet."""
    failed = list(cells[answers("5xx").first : answers("5xx").sum])
    refused = cells[UNAVAILABLE]
    for place, count in enumerate(failed):  # refusals are 503, and answered at once: the first of these
        failed[place] -= min(count, refused)
        refused -= min(count, refused)
    others = [answers(status) for status in ("2xx", "3xx", "4xx")]
    durations = [count + sum(cells[one.first + place] for one in others) for place, count in enumerate(failed)]
    return Answers(sum(failed), tuple(durations), tuple(cells[LAGS.first : LAGS.sum]))


# What the supervisor counts

SUCCEEDED: Final = 0
ROLLOUTS_ABORTED: Final = 1
ROLLED_BACK: Final = 2
RESPAWNS: Final = 3
DEATHS: Final = 4
HUNG: Final = 5
DENIED: Final = 6
"""Requests at the control sockets whose callers had no right to them."""
TURNED_AWAY: Final = 7
"""Connections at the control sockets for which there was no room."""
PHASE_BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
PHASES: Final[Mapping[str, Histogram]] = {
    phase: Histogram(16 + 16 * place, PHASE_BOUNDS) for place, phase in enumerate(Phase)
}
"""How long rollouts took from one phase to the next."""
SUPERVISOR_CELLS: Final = 128


def counted(cells: Sequence[int], changes: FleetChanges) -> list[int]:
    """The supervisor's cells with what has happened since."""
    more = list(cells)
    more[SUCCEEDED] += changes.succeeded
    more[ROLLOUTS_ABORTED] += changes.aborted
    more[ROLLED_BACK] += changes.rolled_back
    more[RESPAWNS] += changes.respawns
    more[DEATHS] += changes.deaths
    more[HUNG] += changes.hung
    for phase, seconds in changes.phases:
        PHASES[phase].observe(more, seconds)
    return more


# Adding up


MOST_COUNTED: Final = 2**53
MOST_NANOSECONDS: Final = 2**63
"""292 years; a sum is of requests that are answered at the same time."""
_SUMS: Final = frozenset({LAGS.sum, *(answers(status).sum for status in CLASSES)})
_MOST: Final = tuple(MOST_NANOSECONDS if cell in _SUMS else MOST_COUNTED for cell in range(CELLS))
MOST_SUM: Final = 2**64 - 1
"""What a sum of them stays at, should it ever be as much: it has to fit into a cell."""


def understood(cells: Sequence[int], before: Sequence[int] = (0,) * CELLS) -> list[int]:
    """What a worker has counted, by what its file holds now.

    Args:
        cells: the file's.
        before: what was understood of it when it was looked at last; that stays of what is another layout, or a
            worker that has not begun, and of a cell that fell or is beyond what can be.
    """
    if cells[OF_LAYOUT] != LAYOUT:
        return list(before)
    kept = [now if was <= now <= most else was for now, was, most in zip(cells[:CELLS], before, _MOST, strict=True)]
    kept[LAG] = min(cells[LAG], MOST_COUNTED)
    kept[CORDONED] = min(cells[CORDONED], 1)
    return kept


def left(cells: Sequence[int]) -> list[int]:
    """What a worker leaves that has ended: all but its header and its gauges."""
    last = list(cells)
    for header in (OF_LAYOUT, OF_PID, OF_START, LAG, CORDONED):
        last[header] = 0
    return last


def added(parts: Iterable[Sequence[int]]) -> list[int]:
    """The sum, cell by cell."""
    return [min(sum(cells), MOST_SUM) for cells in zip([0] * CELLS, *parts, strict=True)]


class Base(msgspec.Struct, frozen=True):
    """What the dead have left, and what supervisors have counted: the content of ``figures.json``."""

    layout: int
    boot: str
    """The kernel's boot_id: pids mean nothing in another."""
    dead: list[int]
    """CELLS of them."""
    supervisor: list[int]
    """SUPERVISOR_CELLS of them."""
    holds: list[str]
    """The paths of files that are contained in ``dead`` and may still be there."""


_decoder = msgspec.json.Decoder(Base)


def encode(base: Base) -> bytes:
    """The base as JSON."""
    return msgspec.json.encode(base)


def decode(text: bytes) -> Base:
    """Read a base; one of a version that counted less has nothing of the rest.

    Raises:
        PeerError: it is none, or one of another layout.
    """
    try:
        base = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PeerError(f"they are no figures: {error}") from error
    base = replace(base, dead=base.dead + [0] * (CELLS - len(base.dead))) if len(base.dead) == _BEFORE else base
    whole = len(base.dead) == CELLS and len(base.supervisor) == SUPERVISOR_CELLS
    if base.layout != LAYOUT or not whole or min(*base.dead, *base.supervisor) < 0:
        raise PeerError(f"they are not of layout {LAYOUT}")
    return base
