"""When a connection may move, what it counts as if it does not, and the figures of the crossing."""

from __future__ import annotations

from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from stillup.core.commands import BeginDrain
from stillup.core.crossing import (
    MOST_READ,
    PACKET_AMONG_SEVERAL,
    PACKET_FOR_ONE,
    Crossed,
    Standing,
    class_of,
    may_move,
    news_waits,
    packet_limit,
    unmoved,
)
from stillup.core.drain import ConnectionClass
from stillup.core.events import (
    BecameReady,
    BeganServing,
    Exited,
    HelloSaid,
    Reported,
    ScaleAsked,
    Spawned,
    WorkerResumed,
)
from stillup.core.states import WorkerState
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from tests.core.story import Story, serving

DRAINING = WorkerState.DRAINING
BOOLEAN = (False, True)
HEADS = (b"", b"G", b"x" * MOST_READ, b"x" * (MOST_READ + 1), None)
UNSENT = (0, 1, 1_000_000)
STANDINGS = [Standing(*each) for each in product(BOOLEAN, BOOLEAN, BOOLEAN, BOOLEAN, BOOLEAN, HEADS, UNSENT)]
"""Every one, with the lengths at which something changes."""


# When


def test_what_may_move() -> None:
    """A connection moves exactly if nothing is under way, queued, arriving or unsent, and what was read is known."""
    for standing in STANDINGS:
        head = standing.head
        known = head is not None and len(head) <= MOST_READ
        idle = not standing.answering and not standing.arriving and standing.unsent == 0
        assert may_move(standing) == (idle and known), standing


def test_nothing_moves_under_its_answer() -> None:
    """A request that is in progress or queued keeps its connection, whatever else holds."""
    for standing in STANDINGS:
        if standing.answering:
            assert not may_move(standing), standing
            kind = ConnectionClass.STREAM if standing.streaming else ConnectionClass.IN_PROGRESS
            assert class_of(standing) is kind, standing


def test_a_connection_that_says_nothing_may_always_move() -> None:
    """One that is idle or unread, with nothing left to send, moves; so does a head that is known to the byte."""
    for standing in STANDINGS:
        kind = class_of(standing)
        if kind in (ConnectionClass.IDLE, ConnectionClass.UNREAD):
            assert may_move(standing) == (standing.unsent == 0), standing
        elif kind is ConnectionClass.HALF_READ:
            known = standing.head is not None and len(standing.head) <= MOST_READ
            assert may_move(standing) == (known and standing.unsent == 0), standing
        else:
            assert not may_move(standing), standing


def test_each_has_one_class() -> None:
    """The answer under way decides, then the body that still comes, then what was read of the next head."""
    for standing in STANDINGS:
        kind = class_of(standing)
        if standing.answering:
            assert kind in (ConnectionClass.STREAM, ConnectionClass.IN_PROGRESS), standing
        elif standing.arriving:
            assert kind is ConnectionClass.ANSWERED, standing
        elif standing.head == b"":
            assert kind is (ConnectionClass.IDLE if standing.asked else ConnectionClass.UNREAD), standing
        else:
            assert kind is ConnectionClass.HALF_READ, standing
        assert class_of(replace(standing, unsent=99)) is kind, f"what is unsent is no class of its own: {standing}"


def test_a_session_is_of_its_own_class_while_it_can_move() -> None:
    """It moves by the same rule; where nobody could take it, it ends as a WebSocket does."""
    for standing in STANDINGS:
        session = replace(standing, session=True)
        assert may_move(session) == may_move(standing), standing
        assert class_of(session) is ConnectionClass.SESSION
        assert class_of(session, sessions_move=False) is ConnectionClass.WEBSOCKET
        assert class_of(standing, sessions_move=False) is class_of(standing), standing


def knowing(*serials: int) -> Story:
    """A service of two, of which these workers know sessions; and a new generation of one that does."""
    story = serving(size=2)
    fleet = story.fleet
    for serial in serials:
        fleet = fleet.with_worker(replace(fleet.workers[serial], takes_sessions=True))
    story.fleet = fleet
    return story


@pytest.mark.parametrize(("serials", "sessions"), [((1, 2), True), ((1,), False), ((2,), True), ((), False)])
def test_sessions_are_given_where_all_who_may_take_them_know_them(serials: tuple[int, ...], sessions: bool) -> None:
    """One worker of an earlier stillup among them, and none is; what the one that leaves knows is its own affair."""
    story = knowing(*serials)
    story.tell(ScaleAsked(1))
    (told,) = [order for order in story.orders if isinstance(order, BeginDrain)]
    assert (told.serial, told.sessions) == (
        (1, sessions) if story.fleet.workers[1].state is DRAINING else (2, 1 in serials)
    )


def test_of_those_that_leave_together_all_give_sessions_to_those_that_stay() -> None:
    """Though one of them is of an earlier stillup: it takes nothing any more when the others begin to give."""
    story = knowing(1)
    story.reload()
    story.tell(*(Spawned(serial, 100 + serial) for serial in (3, 4)))
    story.tell(*(HelloSaid(serial, takes_sessions=True) for serial in (3, 4)))
    story.tell(*(BecameReady(serial) for serial in (3, 4)))
    story.serve(3, 4)
    told = {order.serial: order.sessions for order in story.orders if isinstance(order, BeginDrain)}
    assert told == {1: True, 2: True}


def test_who_says_hello_says_whether_it_knows_sessions() -> None:
    """And who comes back says it again, whatever the record has."""
    story = serving(size=1)
    story.reload()
    story.tell(Spawned(2, 102), HelloSaid(2, takes_sessions=True))
    assert story.fleet.workers[2].takes_sessions
    story.tell(BecameReady(2), BeganServing(2))
    assert [order.sessions for order in story.orders if isinstance(order, BeginDrain)] == [True]
    story.tell(WorkerResumed(2, draining=False, takes_sessions=False))
    assert not story.fleet.workers[2].takes_sessions


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
    story.tell(
        Reported(1, WorkerFigures(crossed=Crossed(given=2, adopted=5))),
        Reported(2, WorkerFigures(crossed=Crossed(given=1, longest=0.5))),
    )
    before = story.fleet.crossed_of(1)
    assert (before, story.fleet.crossed) == (Crossed(given=3, adopted=5, longest=0.5), Crossed())
    story.die(1, age=100.0)
    assert story.fleet.crossed_of(1) == before
    assert story.fleet.crossed == Crossed(given=2, adopted=5)


def test_a_rollout_keeps_what_its_old_generation_gave() -> None:
    """A rollout knows what moved for it when the old generation is gone, and tells it with that generation's end."""
    story = reloaded(size=2)
    story.tell(
        Reported(1, WorkerFigures(crossed=Crossed(given=4, closed=1))),
        Reported(2, WorkerFigures(crossed=Crossed(given=3, told_to_close=2, sessions_given=2))),
    )
    assert story.rollout(2).crossed == Crossed()
    story.exit(1)
    story.exit(2)
    assert story.rollout(2).crossed == Crossed(given=7, closed=1, told_to_close=2, sessions_given=2)
    gone = {"generation": 1, "moved": 7, "sessions": 2, "closed": 1, "told_to_close": 2}
    assert story.news["generation.gone"] == gone
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
    story.tell(
        Reported(1, WorkerFigures(crossed=Crossed(given=2))), Reported(1, WorkerFigures(crossed=Crossed(given=3)))
    )
    assert story.fleet.crossed_of(1) == Crossed(given=3)
    story.tell(Exited(1, "exited 0"))
    assert story.fleet.crossed == Crossed(given=3)


def test_when_it_was_reported() -> None:
    """The ages in a report are as of its time, which is kept with them."""
    story = serving(size=1)
    story.tell(Reported(1, WorkerFigures(oldest={"stream": 12.5})))
    worker = story.fleet.workers[1]
    assert (worker.figures.oldest, worker.reported) == ({"stream": 12.5}, story.now)


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


def test_what_was_added_is_what_is_left_without_it() -> None:
    """Of each figure: what is added up, and what has come since, forget none."""
    one, two = (Crossed(*range(start, start + len(Crossed.__struct_fields__))) for start in (1, 100))
    both = one + two
    assert msgspec.structs.replace(both.since(two), longest=one.longest) == one
    assert both.longest == two.longest


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, []),
        ({"http": "httptools"}, []),
        ({"http": "zttp"}, ["--http zttp"]),
        ({"ssl_certfile": "cert.pem"}, ["TLS"]),
        ({"ssl_keyfile": "key.pem", "http": "zttp"}, ["--http zttp", "TLS"]),
    ],
)
def test_why_none_moves(options: dict[str, object], why: list[str]) -> None:
    """What was read has to be known to the byte, and a TLS session is one process's."""
    assert unmoved(options) == why
