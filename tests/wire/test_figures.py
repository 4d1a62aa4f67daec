"""The cells that are counted in: where each is, how they add up, and how they are written down."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.tally import Phase, Tally
from supervisor.errors import PeerError
from supervisor.wire import figures
from supervisor.wire.figures import CELLS, LAYOUT, SUPERVISOR_CELLS, Base, Histogram

BASE = Base(LAYOUT, "boot", [0] * CELLS, [0] * SUPERVISOR_CELLS, ["/run/figures-1"])
counts = st.lists(st.integers(0, 2**40), min_size=CELLS, max_size=CELLS)


def worker(**cells: int) -> list[int]:
    """The cells of a worker, by the names of what is in them."""
    found = [LAYOUT, 100, 5000, *[0] * (CELLS - 3)]
    for name, count in cells.items():
        found[getattr(figures, name)] = count
    return found


def test_no_two_things_share_a_cell() -> None:
    """Every name has cells of its own, and all of them fit into the file."""
    names = [
        "OF_LAYOUT",
        "OF_PID",
        "OF_START",
        "SENT",
        "RECEIVED",
        "GIVEN",
        "ADOPTED",
        "LOST",
        "CLOSED",
        "LAG",
    ]
    cells = [getattr(figures, name) for name in names]
    for histogram in (figures.LAGS, *map(figures.answers, figures.CLASSES)):
        cells += range(histogram.first, histogram.sum + 1)
    assert len(cells) == len(set(cells))
    assert max(cells) < CELLS <= figures.SIZE // figures.CELL
    cells = [figures.SUCCEEDED, figures.ROLLOUTS_ABORTED, figures.ROLLED_BACK]
    cells += [figures.RESPAWNS, figures.DEATHS, figures.HUNG]
    for histogram in figures.PHASES.values():
        cells += range(histogram.first, histogram.sum + 1)
    assert len(cells) == len(set(cells))
    assert max(cells) < SUPERVISOR_CELLS


def test_a_histogram() -> None:
    """A duration is in the first bucket that is as long; the buckets are shown with all that is shorter."""
    histogram = Histogram(2, (0.1, 1.0))
    cells = memoryview(array("Q", [0] * 8))
    for seconds in (0.0, 0.1, 0.5, 7.0, -0.001):
        histogram.observe(cells, seconds)
    assert list(cells) == [0, 0, 3, 1, 1, 7_600_000_000, 0, 0]
    assert histogram.cumulative(list(cells)) == [("0.1", 3), ("1.0", 4), ("+Inf", 5)]
    assert histogram.count(list(cells)) == 5
    assert histogram.seconds(list(cells)) == 7.6


def test_what_the_dead_leave() -> None:
    """Who it was and how late it was dies with it; all else stays."""
    cells = worker(SENT=70, LAG=5)
    cells[figures.answers("5xx").first] = 1
    left = figures.left(cells)
    assert left[:3] == [0, 0, 0]
    assert (left[figures.SENT], left[figures.LAG], figures.answers("5xx").count(left)) == (70, 0, 1)


def test_another_layout_is_not_understood() -> None:
    """A worker that has not begun, or that counts in another way, counts nothing."""
    assert figures.understood(worker(SENT=7))[figures.SENT] == 7
    cells = worker(SENT=7)
    cells[figures.OF_LAYOUT] = LAYOUT + 1
    assert figures.understood(cells) == [0] * CELLS
    assert len(figures.understood([LAYOUT] * (CELLS + 9))) == CELLS


@given(counts, st.lists(st.tuples(counts, counts), max_size=3))
def test_no_death_makes_a_sum_smaller(dead: list[int], workers: list[tuple[list[int], list[int]]]) -> None:
    """But for gauges and headers, what the dead and the living have counted is the same when one more is dead."""
    living = [[LAYOUT, *cells[1:]] for cells, _ in workers]
    before = figures.added([dead, *living])
    while living:
        dead = figures.added([dead, figures.left(living.pop(0))])
        after = figures.added([dead, *living])
        for cell in set(range(figures.CUT_OFF, CELLS)) - {figures.LAG}:
            assert after[cell] == before[cell]
        before = after


def test_what_the_supervisor_counts() -> None:
    """Each thing that happened has its cell, and each phase its histogram."""
    tally = Tally(1, 2, 3, ((Phase.BOOTING, 0.7), (Phase.BOOTING, 90.0)), 4, 5, 6)
    cells = figures.counted(figures.counted([0] * SUPERVISOR_CELLS, tally), tally)
    names = (figures.SUCCEEDED, figures.ROLLOUTS_ABORTED, figures.ROLLED_BACK)
    assert [cells[cell] for cell in (*names, figures.RESPAWNS, figures.DEATHS, figures.HUNG)] == [2, 4, 6, 8, 10, 12]
    booting = figures.PHASES["booting"]
    assert booting.cumulative(cells)[-3:] == [("30.0", 2), ("60.0", 2), ("+Inf", 4)]
    assert booting.seconds(cells) == pytest.approx(181.4)


def test_the_base_survives_being_written_down() -> None:
    """What is read is what was written."""
    assert figures.decode(figures.encode(BASE)) == BASE


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "no figures"),
        (b"\xff", "no figures"),
        (b'{"layout": 1}', "no figures"),
        (figures.encode(Base(LAYOUT + 1, "", [0] * CELLS, [0] * SUPERVISOR_CELLS, [])), "not of layout 1"),
        (figures.encode(Base(LAYOUT, "", [0] * 3, [0] * SUPERVISOR_CELLS, [])), "not of layout 1"),
        (figures.encode(Base(LAYOUT, "", [-1] * CELLS, [0] * SUPERVISOR_CELLS, [])), "not of layout 1"),
    ],
)
def test_what_is_no_base(text: bytes, why: str) -> None:
    """What nobody here has written is refused."""
    with pytest.raises(PeerError, match=why):
        figures.decode(text)
