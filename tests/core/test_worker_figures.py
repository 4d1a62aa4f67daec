"""What is kept of a report, whatever it says."""

from __future__ import annotations

import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stillup.core.crossing import LONGEST_PAUSE, Crossed
from stillup.core.events import Event, Exited, Reported
from stillup.core.policy import TimerKind
from stillup.core.reports import LOST_PAUSE
from stillup.core.worker_figures import (
    BOUNDS,
    GAUGES,
    MOST,
    THREADS_LIMIT,
    Answers,
    Leadership,
    WorkerFigures,
    is_worth_a_word,
    plausible,
    tell_more,
)
from tests.core.story import Story, serving

ANY_COUNT = st.integers() | st.sampled_from([-1, 0, MOST, MOST + 1, 2**64 - 1, -(2**63), 10**40])
ANY_TIME = st.floats() | st.sampled_from([math.inf, -math.inf, math.nan, 1e308, -1e308])
NAMES = st.sampled_from(["idle", "stream", "background", "in-progress", "", "\x1b[2J", "x" * 1000])
BUCKETS = len(BOUNDS) + 1
ANY_BUCKETS = st.lists(ANY_COUNT, min_size=BUCKETS, max_size=BUCKETS).map(tuple) | st.lists(ANY_COUNT, max_size=3).map(
    tuple
)
LIES = st.builds(
    WorkerFigures,
    st.dictionaries(NAMES, ANY_COUNT),
    ANY_COUNT,
    st.dictionaries(NAMES, ANY_TIME),
    st.builds(
        Crossed,
        *[ANY_COUNT] * 4,
        ANY_TIME,
        sessions_given=ANY_COUNT,
        sessions_adopted=ANY_COUNT,
    ),
    st.dictionaries(NAMES, ANY_COUNT),
    st.text() | st.sampled_from(["", "x" * 1000]),
    answers=st.builds(Answers, ANY_COUNT, ANY_BUCKETS, ANY_BUCKETS),
    refused=st.dictionaries(st.sampled_from(["unaware", "because"]), ANY_COUNT),
    cpu=ANY_TIME,
    memory=ANY_COUNT,
    lag=ANY_TIME,
)


@given(st.lists(LIES, min_size=1, max_size=6))
def test_lies_have_bounds(lies: list[WorkerFigures]) -> None:
    """Whatever a worker says, what is kept has bounds, can be said in JSON, and its counts never fall."""
    kept = WorkerFigures()
    for lie in lies:
        before, kept = kept, plausible(lie, kept)
        assert msgspec.json.decode(msgspec.json.encode(kept), type=WorkerFigures) == kept
        assert set(kept.classes) | set(kept.oldest) <= {"idle", "stream", "background", "in-progress"}
        assert all(0 <= number <= MOST for number in kept.classes.values())
        assert all(0.0 <= seconds < math.inf for seconds in kept.oldest.values())
        assert before.requests <= kept.requests <= MOST
        pairs = zip(msgspec.structs.astuple(before.crossed), msgspec.structs.astuple(kept.crossed), strict=True)
        assert all(was <= now <= MOST for was, now in pairs)
        assert kept.crossed.longest <= LONGEST_PAUSE
        assert set(before.cut) <= set(kept.cut) <= {"idle", "stream", "background", "in-progress"}
        assert all(before.cut.get(name, 0) <= number <= MOST for name, number in kept.cut.items())
        assert before.cpu <= kept.cpu < math.inf
        assert 0 <= kept.memory <= MOST
        assert 0.0 <= kept.lag < math.inf
        assert before.answers.errors <= kept.answers.errors <= MOST
        for was_buckets, buckets in (
            (before.answers.durations, kept.answers.durations),
            (before.answers.lags, kept.answers.lags),
        ):
            assert len(buckets) in (len(was_buckets), BUCKETS)
            assert all(0 <= count <= MOST for count in buckets)
            assert all(was <= count for was, count in zip(was_buckets, buckets, strict=False))
        assert kept.answers.requests == sum(kept.answers.durations)
        assert set(before.refused) <= set(kept.refused) <= {"unaware"}
        assert all(before.refused.get(name, 0) <= number <= MOST for name, number in kept.refused.items())
        assert len(kept.threads) <= THREADS_LIMIT
        assert not before.threads or kept.threads == before.threads


def test_the_truth_is_kept_as_it_is() -> None:
    """What can be is what it was."""
    answers = Answers(2, (17, *[0] * (BUCKETS - 1)), (3, 1, *[0] * (BUCKETS - 2)))
    said = WorkerFigures({"idle": 3, "background": 1}, 17, {"stream": 2.5}, Crossed(4, 3, 2, 1, 0.25), {"stream": 2})
    said = msgspec.structs.replace(said, answers=answers)
    assert plausible(said, WorkerFigures(requests=16)) == said


def test_gauges_are_made_of_figures() -> None:
    """Each of every worker's figures, also of those that have said nothing; where it has a label, each value has it."""
    said = WorkerFigures({"idle": 3, "in-progress": 2, "stream": 1, "background": 1})
    parts = {gauge.name: gauge.of(said) for gauge in GAUGES}
    assert sum(parts["stillup_http_requests_in_progress"].values()) == 3
    assert parts["stillup_connections"] == said.classes
    assert all(sum(gauge.of(WorkerFigures()).values()) == 0 for gauge in GAUGES)
    assert all(set(gauge.of(said)) <= set(gauge.values) for gauge in GAUGES if gauge.label)


def test_a_history_is_not_made_of_what_one_worker_says() -> None:
    """A worker that loses one more connection with every report is told of once in ten seconds, by how many."""
    story = serving(size=1)
    told = []
    for number in range(1, 251):
        story.news.clear()
        story.tell(Reported(1, WorkerFigures(crossed=Crossed(lost=number))))
        told += [news["connections"] for kind, news in story.news.items() if kind == "connections.lost"]
        story.now += 0.125
    assert told == [1, 80, 80, 80]
    story.now += LOST_PAUSE
    story.news.clear()
    story.tell(Reported(1, WorkerFigures(crossed=Crossed(lost=250))))
    assert story.news["connections.lost"] == {"worker": "1.1", "connections": 9}


def test_what_was_cut_is_told_once() -> None:
    """The first report of it at once, what comes soon after it together, and the rest with the worker's end."""
    story = draining_with(Reported(1, WorkerFigures(cut={"stream": 1})))
    assert story.news["connections.cut"] == {"worker": "1.1", "connections": {"stream": 1}}
    story.now += 1.0
    story.tell(Reported(1, WorkerFigures(cut={"stream": 3, "background": 1})))
    assert "connections.cut" not in story.news
    story.now += LOST_PAUSE
    story.tell(Reported(1, WorkerFigures(cut={"stream": 3, "background": 1})))
    assert story.news["connections.cut"] == {"worker": "1.1", "connections": {"stream": 2, "background": 1}}
    story.tell(Reported(1, WorkerFigures(cut={"stream": 4, "background": 1})))
    story.tell(Exited(1, "exited 0"))
    assert story.news["connections.cut"] == {"worker": "1.1", "connections": {"stream": 1}}


def test_sessions_that_did_not_go_on_are_told_once() -> None:
    """As what was cut is, of a worker that serves; and what is no reason is not kept."""
    story = serving(size=1)
    story.tell(Reported(1, WorkerFigures(refused={"unaware": 2, "of the app's": 9})))
    assert story.news["sessions.refused"] == {"worker": "1.1", "sessions": {"unaware": 2}}
    story.now += 1.0
    story.news.clear()
    story.tell(Reported(1, WorkerFigures(refused={"unaware": 3, "too-large": 1})))
    assert story.news == {}
    story.now += LOST_PAUSE
    story.tell(Reported(1, WorkerFigures(refused={"unaware": 3, "too-large": 1})))
    assert story.news["sessions.refused"] == {"worker": "1.1", "sessions": {"unaware": 1, "too-large": 1}}
    story.tell(Reported(1, WorkerFigures(refused={"unaware": 4, "too-large": 1})))
    story.tell(Exited(1, "exited 0"))
    assert story.news["sessions.refused"] == {"worker": "1.1", "sessions": {"unaware": 1}}


def test_threads_are_told_once() -> None:
    """A worker that is kept by threads is told of once, and they are named when it is overdue, too."""
    story = draining_with(Reported(1, WorkerFigures(threads="poll (main.py:12)")))
    assert story.news == {"worker.held-up": {"worker": "1.1", "message": "poll (main.py:12)"}}
    story.tell(Reported(1, WorkerFigures(threads="another")))
    assert story.news == {}
    story.fire(TimerKind.DRAIN, 1)
    assert story.news["worker.overdue"] == {
        "worker": "1.1",
        "connections": {},
        "held_up": True,
        "message": "poll (main.py:12)",
    }


def draining_with(event: Event) -> Story:
    """A service whose old worker drains, and to which that has just happened."""
    story = serving(size=1)
    story.reload()
    story.ready(2)
    story.serve(2)
    story.tell(event)
    return story


def test_that_a_process_lives_on_is_nothing() -> None:
    """Its time, its memory and its heartbeats go on while it serves nobody; whatever it has served is more."""
    was = WorkerFigures({"idle": 1}, 7)
    older = msgspec.structs.replace(was, cpu=2.0, memory=2**20, lag=0.1, answers=Answers(lags=(1,) * BUCKETS))
    assert not tell_more(older, was)
    for name, value in (
        ("classes", {"idle": 2}),
        ("requests", 8),
        ("crossed", Crossed(given=1)),
        ("cut", {"stream": 1}),
        ("refused", {"too-large": 1}),
        ("answers", Answers(errors=1)),
        ("answers", Answers(durations=(1,) * BUCKETS)),
    ):
        assert tell_more(msgspec.structs.replace(was, **{name: value}), was), name
    for kind in ("stream", "websocket"):
        open_one = WorkerFigures({kind: 1})
        assert tell_more(open_one, open_one), "who knows what it says"


def test_a_worker_that_only_lives_on_has_nothing_to_say() -> None:
    """A little time, memory and lag are no news; each other figure is, and each of these from where it may matter."""
    was = WorkerFigures({"idle": 1}, 7, cpu=1.0, memory=50 * 2**20)
    beats = Answers(lags=(1,) * BUCKETS)
    older = msgspec.structs.replace(was, cpu=1.01, memory=was.memory + 4096, lag=0.01, answers=beats)
    assert not is_worth_a_word(older, was)
    for name, value in (
        ("requests", 8),
        ("threads", "worker-1"),
        ("leadership", Leadership(wants=True)),
        ("at_rest", True),
        ("lag", 0.05),
        ("cpu", 1.03),
        ("memory", 51 * 2**20),
        ("memory", 49 * 2**20),
    ):
        assert is_worth_a_word(msgspec.structs.replace(was, **{name: value}), was), name
    stalled = msgspec.structs.replace(was, lag=0.8)
    assert is_worth_a_word(was, stalled), "that it is over"
