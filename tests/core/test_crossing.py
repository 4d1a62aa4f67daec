"""When a connection may move, what it counts as if it does not, and the figures of the crossing."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.commands import BeginDrain
from supervisor.core.crossing import (
    MOST_READ,
    PACKET_AMONG_SEVERAL,
    PACKET_FOR_ONE,
    Crossed,
    Standing,
    class_of,
    may_move,
    news_waits,
    packet_limit,
)
from supervisor.core.drain import ConnectionClass
from supervisor.core.events import Exited, Reported, ScaleAsked
from tests.core.telling import Story, serving

BOOLEAN = (False, True)
HEADS = (b"", b"G", b"x" * MOST_READ, b"x" * (MOST_READ + 1), None)
UNSENT = (0, 1, 1_000_000)
STANDINGS = [Standing(*each) for each in product(BOOLEAN, BOOLEAN, BOOLEAN, BOOLEAN, HEADS, UNSENT)]
"""Every one, with the lengths at which something changes."""
IDS = [str(number) for number in range(len(STANDINGS))]


# When


@pytest.mark.parametrize("standing", STANDINGS, ids=IDS)
def test_what_may_move(standing: Standing) -> None:
    """A connection moves exactly if nothing is under way, queued, arriving or unsent, and what was read is known."""
    head = standing.head
    known = head is not None and len(head) <= MOST_READ
    idle = not standing.answering and not standing.arriving and standing.unsent == 0
    assert may_move(standing) == (idle and known)


@pytest.mark.parametrize("standing", [each for each in STANDINGS if each.answering], ids=str)
def test_nothing_moves_under_its_answer(standing: Standing) -> None:
    """A request that is in progress or queued keeps its connection, whatever else holds."""
    assert not may_move(standing)
    assert class_of(standing) is (ConnectionClass.STREAM if standing.endless else ConnectionClass.IN_PROGRESS)


@pytest.mark.parametrize("standing", STANDINGS, ids=IDS)
def test_who_says_nothing_may_always_move(standing: Standing) -> None:
    """Whoever is idle or unread, with nothing left to send, moves; so does a head that is known to the byte."""
    kind = class_of(standing)
    if kind in (ConnectionClass.IDLE, ConnectionClass.UNREAD):
        assert may_move(standing) == (standing.unsent == 0)
    elif kind is ConnectionClass.HALF_READ:
        known = standing.head is not None and len(standing.head) <= MOST_READ
        assert may_move(standing) == (known and standing.unsent == 0)
    else:
        assert not may_move(standing)


@pytest.mark.parametrize("standing", STANDINGS, ids=IDS)
def test_each_has_one_class(standing: Standing) -> None:
    """The answer under way decides, then the body that still comes, then what was read of the next head."""
    kind = class_of(standing)
    if standing.answering:
        assert kind in (ConnectionClass.STREAM, ConnectionClass.IN_PROGRESS)
    elif standing.arriving:
        assert kind is ConnectionClass.ANSWERED
    elif standing.head == b"":
        assert kind is (ConnectionClass.IDLE if standing.asked else ConnectionClass.UNREAD)
    else:
        assert kind is ConnectionClass.HALF_READ
    assert class_of(replace(standing, unsent=99)) is kind, "what is unsent is no class of its own"


def test_packet_limit() -> None:
    """Sixteen connections a packet while several serve, so that none takes them all; sixty-four for a single one."""
    assert (PACKET_AMONG_SEVERAL, PACKET_FOR_ONE) == (16, 64)
    assert [packet_limit(serving) for serving in range(5)] == [64, 64, 16, 16, 16]


# The figures

FIGURES = st.builds(
    Crossed, *[st.integers(0, 2**40) if part.name != "longest" else st.floats(0, 1e9) for part in fields(Crossed)]
)


@given(FIGURES, FIGURES, FIGURES)
def test_figures_add_up(one: Crossed, two: Crossed, three: Crossed) -> None:
    """Counts are added and the longest pause is the longest; the order does not matter, and nothing changes nothing."""
    both = one + two
    assert both == two + one
    assert one + Crossed() == one
    assert both + three == one + (two + three)
    assert (both.given, both.adopted) == (one.given + two.given, one.adopted + two.adopted)
    assert (both.lost, both.closed) == (one.lost + two.lost, one.closed + two.closed)
    assert both.longest == max(one.longest, two.longest)


def test_a_dead_workers_figures_stay() -> None:
    """What a worker gave and took counts on after its death, once: for the service and for its generation."""
    story = serving(size=2)
    story.tell(Reported(1, crossed=Crossed(given=2, adopted=5)), Reported(2, crossed=Crossed(given=1, longest=0.5)))
    before = story.fleet.crossed_of(1)
    assert (before, story.fleet.crossed) == (Crossed(given=3, adopted=5, longest=0.5), Crossed())
    story.die(1, age=100.0)
    assert story.fleet.crossed_of(1) == before
    assert story.fleet.crossed == Crossed(given=2, adopted=5)


def test_a_rollout_keeps_what_its_old_generation_gave() -> None:
    """A rollout knows what moved for it when the old generation is gone, and tells it with that generation's end."""
    story = reloaded(size=2)
    story.tell(Reported(1, crossed=Crossed(given=4, closed=1)), Reported(2, crossed=Crossed(given=3)))
    assert story.rollout(2).crossed == Crossed()
    story.exit(1)
    story.exit(2)
    assert story.rollout(2).crossed == Crossed(given=7, closed=1)
    assert story.news["generation.gone"] == {"generation": 1, "moved": 7, "closed": 1}
    assert story.rollout(1).crossed == Crossed(), "another rollout's figures are its own"
    assert story.fleet.crossed_of(1) == Crossed(), "a generation that is gone is not counted a second time"


def reloaded(size: int) -> Story:
    """A supervisor whose second generation has just begun to serve."""
    story = serving(size)
    new = range(size + 1, 2 * size + 1)
    story.reload()
    story.ready(*new)
    story.serve(*new)
    return story


@pytest.mark.parametrize(("size", "packet"), [(1, 64), (2, 16), (3, 16)])
def test_how_many_an_old_worker_gives_at_a_time(size: int, packet: int) -> None:
    """With one worker to take them all, the old ones give packets of 64; with more they give packets of 16."""
    assert {order.packet for order in reloaded(size).orders if isinstance(order, BeginDrain)} == {packet}


def test_how_many_a_worker_gives_when_fewer_are_wanted() -> None:
    """Scaled down to one, the one that stays is whom it all goes to; scaled down to two, there are two."""
    for size, packets in ((1, [16, 64]), (2, [16])):
        story = serving(size=3)
        story.tell(ScaleAsked(size))
        assert [order.packet for order in story.orders if isinstance(order, BeginDrain)] == packets


def test_a_report_is_of_a_workers_whole_life() -> None:
    """A report replaces the one before, and is not added to it."""
    story = serving(size=1)
    story.tell(Reported(1, crossed=Crossed(given=2)), Reported(1, crossed=Crossed(given=3)))
    assert story.fleet.crossed_of(1) == Crossed(given=3)
    story.tell(Exited(1, "exited 0"))
    assert story.fleet.crossed == Crossed(given=3)


def test_since_when() -> None:
    """Ages in a report become times, which go on by themselves."""
    story = serving(size=1)
    story.tell(Reported(1, oldest={"stream": 12.5}))
    assert story.fleet.workers[1].oldest == {"stream": story.now - 12.5}


@pytest.mark.parametrize(
    ("took", "left", "seconds"),
    [
        (0.0, 1.0, 0.1),  # a report that costs nothing
        (0.01, 1.0, 0.1),
        (0.05, 1.0, 0.5),  # one that holds others up
        (0.05, 0.3, 0.3),  # the beat is due
        (0.5, 1.0, 1.0),
        (0.5, 0.0, 0.1),  # what comes together is reported together all the same
        (0.0, -1.0, 0.1),
    ],
)
def test_news_waits_in_proportion(took: float, left: float, seconds: float) -> None:
    """It waits ten times as long as the last report took, but not beyond the beat, and never for less than a little."""
    assert news_waits(took, left) == pytest.approx(seconds)
