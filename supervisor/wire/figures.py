"""What a worker counts, and where: cells of 64 bits in a file that it shares with the supervisor.

1. A cell has one writer, the worker's event loop; whoever reads may do so at any time, since an aligned cell is stored
   whole. Nothing is sent and nothing flushed, so that a worker that is killed leaves all that it had counted.
2. But for the gauges, a cell only grows: those of many workers, living and dead, add up to counters that never fall.
3. Cells are only ever added. One that changes its meaning, or its place, needs a new LAYOUT.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from supervisor.core.tally import Phase, Tally
from supervisor.errors import PeerError

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


@dataclass(frozen=True, slots=True)
class Histogram:
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
"""A gauge: nanoseconds by which the newest beat came late."""
LAGS: Final = Histogram(16, (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0))
"""By how much each beat came late."""
DURATIONS: Final = LAGS.bounds
"""Seconds that bound the buckets of how long requests take."""
ANSWERS: Final = 32
"""The first cell of the first class of answers; each has PER_CLASS of them."""
PER_CLASS: Final = 16
CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx", "aborted")
"""Of answers, by their status; the last are those that did not come to their end."""
ABORTED: Final = len(CLASSES)
"""As if it were a status of six hundred and something."""
CELLS: Final = 128


def answers(status: str) -> Histogram:
    """How long the requests took that were answered with such a status."""
    return Histogram(ANSWERS + PER_CLASS * CLASSES.index(status), DURATIONS)


# What the supervisor counts

SUCCEEDED: Final = 0
ROLLOUTS_ABORTED: Final = 1
ROLLED_BACK: Final = 2
RESPAWNS: Final = 3
DEATHS: Final = 4
HUNG: Final = 5
PHASE_BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
PHASES: Final[Mapping[str, Histogram]] = {
    phase: Histogram(16 + 16 * place, PHASE_BOUNDS) for place, phase in enumerate(Phase)
}
"""How long rollouts took from one phase to the next."""
SUPERVISOR_CELLS: Final = 128


def counted(cells: Sequence[int], tally: Tally) -> list[int]:
    """The supervisor's cells with what has happened since."""
    more = list(cells)
    more[SUCCEEDED] += tally.succeeded
    more[ROLLOUTS_ABORTED] += tally.aborted
    more[ROLLED_BACK] += tally.rolled_back
    more[RESPAWNS] += tally.respawns
    more[DEATHS] += tally.deaths
    more[HUNG] += tally.hung
    for phase, seconds in tally.phases:
        PHASES[phase].observe(more, seconds)
    return more


# Adding up


def understood(cells: Sequence[int]) -> list[int]:
    """The cells of a worker's file; all zero if they are of another layout, or of a worker that has not begun."""
    return list(cells[:CELLS]) if cells[OF_LAYOUT] == LAYOUT else [0] * CELLS


def left(cells: Sequence[int]) -> list[int]:
    """What a worker leaves that has ended: all but its header and its gauges."""
    last = list(cells)
    for header in (OF_LAYOUT, OF_PID, OF_START, LAG):
        last[header] = 0
    return last


def added(parts: Iterable[Sequence[int]]) -> list[int]:
    """The sum, cell by cell."""
    return [sum(cells) for cells in zip([0] * CELLS, *parts, strict=True)]


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
    """Read a base.

    Raises:
        PeerError: it is none, or one of another layout.
    """
    try:
        base = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PeerError(f"they are no figures: {error}") from error
    whole = len(base.dead) == CELLS and len(base.supervisor) == SUPERVISOR_CELLS
    if base.layout != LAYOUT or not whole or min(*base.dead, *base.supervisor) < 0:
        raise PeerError(f"they are not of layout {LAYOUT}")
    return base
