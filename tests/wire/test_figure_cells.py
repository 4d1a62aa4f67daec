"""The cells that are counted in: where each is, how they add up, and how they are written down."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.core.crossing import ResumeRefusal
from stillup.core.fleet_changes import FleetChanges, Phase
from stillup.errors import PeerError
from stillup.wire import figure_cells
from stillup.wire.figure_cells import CELLS, LAYOUT, SUPERVISOR_CELLS, Base, Histogram

BASE = Base(LAYOUT, "boot", [0] * CELLS, [0] * SUPERVISOR_CELLS, ["/run/figures-1"])
counts = st.lists(st.integers(0, 2**40), min_size=CELLS, max_size=CELLS)

GAUGES = {figure_cells.LAG, figure_cells.CORDONED}


def worker(**cells: int) -> list[int]:
    """The cells of a worker, by the names of what is in them."""
    found = [LAYOUT, 100, 5000, *[0] * (CELLS - 3)]
    for name, count in cells.items():
        found[getattr(figure_cells, name)] = count
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
        "ANSWERS_UNDER_CORDON",
        "CORDONED",
        "ENDED_BY_ANSWER",
        "UNAVAILABLE",
        "SESSIONS_GIVEN",
        "SESSIONS_ADOPTED",
        "SESSION_BYTES",
    ]
    cells = [getattr(figure_cells, name) for name in names]
    cells += map(figure_cells.refused, ResumeRefusal)
    for histogram in (figure_cells.LAGS, *map(figure_cells.answers, figure_cells.CLASSES)):
        cells += range(histogram.first, histogram.sum + 1)
    assert len(cells) == len(set(cells))
    assert max(cells) < CELLS <= figure_cells.SIZE // figure_cells.CELL
    cells = [figure_cells.SUCCEEDED, figure_cells.ROLLOUTS_ABORTED, figure_cells.ROLLED_BACK]
    cells += [figure_cells.RESPAWNS, figure_cells.DEATHS, figure_cells.HUNG]
    for histogram in figure_cells.PHASES.values():
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


def test_what_the_app_has_answered() -> None:
    """Whatever has a status from 200 on, by how soon it began; what the server refused in its place is none of it."""
    cells = worker(UNAVAILABLE=3)
    for status, seconds in (("1xx", 9.0), ("2xx", 0.0), ("2xx", 0.2), ("3xx", 0.0), ("4xx", 99.0), ("aborted", 0.2)):
        figure_cells.answers(status).observe(cells, seconds)
    for seconds in (0.2, *[0.0] * 3):
        figure_cells.answers("5xx").observe(cells, seconds)
    figure_cells.LAGS.observe(cells, 0.002)
    said = figure_cells.answers_of_app(cells)
    assert (said.errors, said.requests) == (1, 5)
    assert said.durations == (2, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1)
    assert said.lags == (0, 1, *[0] * 12)
    cells[figure_cells.UNAVAILABLE] = 4
    said = figure_cells.answers_of_app(cells)
    assert (said.errors, said.durations[0], said.requests) == (0, 2, 4)  # a slow refusal, and no bucket of others falls


def test_what_the_dead_leave() -> None:
    """Who it was and how late it was dies with it; all else stays."""
    cells = worker(SENT=70, LAG=5)
    cells[figure_cells.answers("5xx").first] = 1
    left = figure_cells.left(cells)
    assert left[:3] == [0, 0, 0]
    assert (left[figure_cells.SENT], left[figure_cells.LAG], figure_cells.answers("5xx").count(left)) == (70, 0, 1)


def test_another_layout_is_not_understood() -> None:
    """A worker that has not begun, or that counts in another way, counts nothing."""
    assert figure_cells.understood(worker(SENT=7))[figure_cells.SENT] == 7
    cells = worker(SENT=7)
    cells[figure_cells.OF_LAYOUT] = LAYOUT + 1
    assert figure_cells.understood(cells) == [0] * CELLS
    assert len(figure_cells.understood([LAYOUT] * (CELLS + 9))) == CELLS


CELL = st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**53, 2**53 + 1, 2**63, 2**64 - 1])


@given(st.lists(st.lists(CELL, min_size=CELLS, max_size=CELLS).map(lambda cells: [LAYOUT, *cells[1:]]), max_size=4))
def test_lies_have_bounds(lies: list[list[int]]) -> None:
    """Whatever a worker writes, none of its counters falls or is beyond what can be, and one lie costs one cell."""
    kept = [0] * CELLS
    for cells in lies:
        before, kept = kept, figure_cells.understood(cells, kept)
        for cell in set(range(figure_cells.CUT_OFF, CELLS)) - GAUGES:
            assert before[cell] <= kept[cell] <= figure_cells.MOST_NANOSECONDS
            assert kept[cell] == cells[cell] or not before[cell] <= cells[cell] <= figure_cells.MOST_COUNTED
        assert all(kept[cell] <= figure_cells.MOST_COUNTED for cell in GAUGES)
        assert figure_cells.understood([LAYOUT + 1, *cells[1:]], kept) == kept
    total = figure_cells.added([kept] * 3)
    base = Base(LAYOUT, "boot", total, [0] * SUPERVISOR_CELLS, [])
    assert figure_cells.decode(figure_cells.encode(base)) == base


@given(counts, st.lists(st.tuples(counts, counts), max_size=3))
def test_no_death_makes_a_sum_smaller(dead: list[int], workers: list[tuple[list[int], list[int]]]) -> None:
    """But for gauges and headers, what the dead and the living have counted is the same when one more is dead."""
    living = [[LAYOUT, *cells[1:]] for cells, _ in workers]
    before = figure_cells.added([dead, *living])
    while living:
        dead = figure_cells.added([dead, figure_cells.left(living.pop(0))])
        after = figure_cells.added([dead, *living])
        for cell in set(range(figure_cells.CUT_OFF, CELLS)) - GAUGES:
            assert after[cell] == before[cell]
        before = after


def test_what_the_supervisor_counts() -> None:
    """Each thing that happened has its cell, and each phase its histogram."""
    changes = FleetChanges(1, 2, 3, ((Phase.BOOTING, 0.7), (Phase.BOOTING, 90.0)), 4, 5, 6)
    cells = figure_cells.counted(figure_cells.counted([0] * SUPERVISOR_CELLS, changes), changes)
    names = (figure_cells.SUCCEEDED, figure_cells.ROLLOUTS_ABORTED, figure_cells.ROLLED_BACK)
    assert [cells[cell] for cell in (*names, figure_cells.RESPAWNS, figure_cells.DEATHS, figure_cells.HUNG)] == [
        2,
        4,
        6,
        8,
        10,
        12,
    ]
    booting = figure_cells.PHASES["booting"]
    assert booting.cumulative(cells)[-3:] == [("30.0", 2), ("60.0", 2), ("+Inf", 4)]
    assert booting.seconds(cells) == pytest.approx(181.4)


def test_the_base_survives_being_written_down() -> None:
    """What is read is what was written."""
    assert figure_cells.decode(figure_cells.encode(BASE)) == BASE


def test_the_base_of_a_version_that_counted_less() -> None:
    """What it did not count is 0, and nothing else is lost."""
    before = Base(LAYOUT, "boot", [0, 0, 0, *range(125)], [0] * SUPERVISOR_CELLS, [])
    assert figure_cells.decode(figure_cells.encode(before)).dead == before.dead + [0] * (CELLS - 128)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "no figures"),
        (b"\xff", "no figures"),
        (b'{"layout": 1}', "no figures"),
        (figure_cells.encode(Base(LAYOUT + 1, "", [0] * CELLS, [0] * SUPERVISOR_CELLS, [])), "not of layout 1"),
        (figure_cells.encode(Base(LAYOUT, "", [0] * 3, [0] * SUPERVISOR_CELLS, [])), "not of layout 1"),
        (figure_cells.encode(Base(LAYOUT, "", [-1] * CELLS, [0] * SUPERVISOR_CELLS, [])), "not of layout 1"),
    ],
)
def test_what_is_no_base(text: bytes, why: str) -> None:
    """What nobody here has written is refused."""
    with pytest.raises(PeerError, match=why):
        figure_cells.decode(text)
