"""The frames of ``stillup top``: what is in them, whatever the service does and however large the terminal is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stillup.client.live_service import Moment
from stillup.client.top.top_bars import MARKS
from stillup.client.top.top_frame import TopView, frame
from stillup.client.top.top_keys import offered
from stillup.client.top.top_lines import cells, painted, plain
from stillup.client.top.top_rates import SUPERVISOR, Rate, Rates, averages
from stillup.client.top.top_rollout import is_under_way
from stillup.core.events import StopAsked
from stillup.core.policy import Policy
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.values import replace
from stillup.wire import fleet_views
from stillup.wire.api_shapes import GenerationView, ListenerView, OutcomeView, Status, SupervisorView, VacancyView
from stillup.wire.crossing_view import QueueView
from stillup.wire.event_encoding import AnyEvent
from stillup.wire.watch_views import SideView
from tests.client import busy_supervisor
from tests.client.hostile_supervisor import ATTACK, hostile
from tests.core import story
from tests.core.canary_story import watched
from tests.core.story import Story

AT = 1000.0
"""When the status was answered."""
ROLE = frozenset({"reload", "rollback", "scale", "abort", "promote"})
SUPERVISOR_VIEW = SupervisorView(
    version="1.0", pid=4000, uptime=3900.0, cpu=39.0, memory=40 << 20, name="shop", listeners=[]
)


def of(told: Story) -> Status:
    """The status at the end of a story."""
    return fleet_views.status(told.fleet, SUPERVISOR_VIEW, QueueView(waiting=0, capacity=9), told.now)


def shown(
    status: Status | None,
    view: TopView | None = None,
    *,
    rates: Rates | None = None,
    trouble: str = "",
    events: int = 0,
    later: float = 0.0,
) -> list[str]:
    """The lines of a frame, 80 columns and 24 lines unless it is said otherwise; each fits, and so do all."""
    view = view or TopView(80, 24)
    told = tuple(event(number) for number in range(events))
    lines = frame(Moment(status, AT, trouble, told), rates or {}, view, AT + later)
    assert all(cells(plain(line)) <= view.width for line in lines)
    assert view.height is None or len(lines) == view.height
    return [plain(line) for line in lines]


def event(number: int) -> AnyEvent:
    at = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    return AnyEvent("worker.dances", number, at, float(number), f"event number {number}")


def find(lines: list[str], *parts: str) -> str:
    """The first line with these parts."""
    found = next((line for line in lines if all(part in line for part in parts)), None)
    assert found is not None, (parts, "\n".join(lines))
    return found


def with_rollout(status: Status, **changes: Any) -> Status:
    assert status.rollout is not None
    return replace(status, rollout=replace(status.rollout, **changes))


def forty(classes: Mapping[str, int] | None = None) -> Status:
    status = busy_supervisor.status(40)
    if classes is None:
        return status
    workers = [replace(one, classes=classes) for one in status.generations[0].workers]
    return replace(status, generations=[replace(status.generations[0], workers=workers)])


# What the service does


def test_a_boot() -> None:
    """How many are ready of how many, and for how long they boot; that is counted on between two looks."""
    told = story.begin(3)
    told.ready(1)
    status = of(told)
    status = with_rollout(status, booting_for=2.0, total=2.5)
    lines = shown(status)
    assert lines[0].startswith("shop  starting  up 1h05m   supervisor pid 4000")
    assert find(lines, "  boot ", "1/3 ready").endswith("  2.0 s")
    assert find(shown(status, later=0.5), "  boot ").endswith("  2.5 s")
    assert find(lines, "gen 1", "booting").split()[:3] == ["gen", "1", "booting"]
    assert is_under_way(status)


def test_a_reload() -> None:
    """Its steps, those that are done with their times; both generations, and what the old one still has."""
    told = story.draining(2)
    rollout = fleet_views.rollout(told.fleet, told.rollout(2), told.now)
    rollout = replace(rollout, cut_over_took=0.012, moved=31, moved_sessions=2, longest_pause=0.003)
    rollout = replace(rollout, drains={"stream": 3, "idle": 1}, drain_left=28.0, booting_for=1.2, total=3.25)
    old, new = of(told).generations
    status = replace(of(told), rollout=rollout, generations=[replace(old, draining_for=2.0), new])
    lines = shown(status)
    assert find(lines, "gen 1 -> 2  draining", "srv/old -> srv/new").endswith("3.2 s")
    assert find(lines, "  boot ", "2/2 ready").endswith("1.2 s")
    assert find(lines, "  cut over").endswith("12 ms")
    assert find(lines, "  moved ").endswith("31 connections (2 sessions), longest pause 3 ms")
    assert find(lines, "  drain ").endswith("gen 1: 3 stream, 1 idle; at most 28 s")
    assert "draining for 2 s, at most 28 s more" in find(lines, "  gen 1  draining")
    later = shown(status, later=5.0)
    assert find(later, "  drain ").endswith("at most 23 s")
    assert "draining for 7 s, at most 23 s more" in find(later, "  gen 1  draining")
    assert find(later, "gen 1 -> 2").endswith("3.2 s"), "it has succeeded after that time"
    assert not is_under_way(status)


def test_a_drain() -> None:
    """Of a worker that drains it is said for how long it has had what, beside what it has."""
    status = forty()
    old = replace(status.generations[0].workers[0], state="draining", oldest={"stream": 61.0}, classes={"stream": 2})
    status = replace(status, generations=[GenerationView(1, "draining", "shop@1", [old], draining_for=60.0)])
    assert find(shown(status), "1.1 ").endswith("2  stream for 1m01s")
    assert find(shown(status, later=2), "1.1 ").endswith("2  stream for 1m03s")
    assert find(shown(status, TopView(120, 24)), "1.1 ").endswith(f"2 {'~' * 27} stream for 1m01s")


def test_a_hang() -> None:
    """It is said in red, and shown even where there is no room for most workers; a slot that waits is, too."""
    status = forty()
    workers = [*status.generations[0].workers]
    workers[30] = replace(workers[30], hung_for=12.0, worn="hangs (--hang-timeout)", leader=True)
    vacancy = VacancyView("1.41", 3, 4.0)
    status = replace(status, generations=[replace(status.generations[0], workers=workers, waiting=[vacancy])])
    lines = shown(status)
    assert find(lines, "1.31* ").endswith("hangs for 12 s")
    assert find(lines, "1.41 ").endswith("waits     died young 3 times in a row, next start in 4 s")
    made = frame(Moment(status, AT), {}, TopView(80, 24), AT)
    (parts,) = [line for line in made if "1.31*" in plain(line)]
    assert parts[-1] == ("hangs for 12 s", "red")


def test_a_stop() -> None:
    """The state says so, and since when each generation drains."""
    told = story.serving(2)
    told.tell(StopAsked("a test"))
    lines = shown(of(told))
    assert lines[0].startswith("shop  stopping ")
    assert "draining for 0 s" in find(lines, "  gen 1  draining")
    assert shown(replace(of(told), generations=[]))[3].strip() == "no workers"


def test_a_canary() -> None:
    """Its figures beside those of what serves, how long it is watched, and what it is held for."""
    told = watched()
    status = of(told)
    assert status.rollout is not None
    assert status.rollout.watch is not None
    watch = replace(status.rollout.watch, watched_for=38.0, goes_back_in=552.0, share=0.11)
    watch = replace(watch, old=SideView(1000, 1, 0.039, 0.0), new=SideView(500, 1, 0.041, 0.0))
    held = replace(watch, held_for=2.0, reason="errors")
    status = with_rollout(status, watch=held)
    lines = shown(status)
    assert find(lines, "gen 1 -> 2  watching (canary)")
    assert "1/4 on gen 2, 11 % of requests, 5xx 0.2 % (old 0.1)" in find(lines, "  canary ")
    assert lines[lines.index(find(lines, "  hold ")) + 1] == "            in 9m12s", (
        "what a line has no room for follows"
    )
    wide = shown(status, TopView(120, 24), later=3.0)
    assert find(wide, "  canary ").endswith("p99 41 ms (39)  41/60 s")
    assert find(wide, "  hold ").endswith("promote, abort, or goes back in 9m09s")
    assert find(lines, "  roll ").endswith("1/4 on gen 2, 4 on gen 1")
    assert is_under_way(status)
    assert offered(status, ROLE) == ["r", "b", "+", "-", "a", "p"]


def test_a_rolling_reload() -> None:
    """How many serve on either side."""
    told = story.serving(3, Policy(strategy=Strategy(StrategyKind.ROLLING)))
    told.reload()
    told.ready(4)
    told.serve(4)
    lines = shown(of(told))
    assert find(lines, "gen 1 -> 2  shifting (rolling)")
    assert "on gen 2" in find(lines, "  roll ")


def test_how_rollouts_ended() -> None:
    """While none is under way: as ``status`` says it."""
    ended = OutcomeView("aborted", 7.0, 2, 2, "shop@2", "asked by uid 0", "import", "worker 2.1 (pid 9) failed")
    lines = shown(replace(forty(), outcomes=[ended]), later=2.0)
    text = "gen 2 rejected (import): worker 2.1 (pid 9) failed"
    assert find(lines, text).startswith("  last      ")
    assert find(shown(replace(forty(), outcomes=[ended]), TopView(120, 24), later=2.0), text).endswith("9 s ago")


def test_no_supervisor_answers() -> None:
    """In red, for how long, why, and that the rest is old: no time is counted on."""
    told = story.draining(1)
    assert told.rollout(2)
    status = of(told)
    before = shown(status)
    after = shown(status, later=4.2, trouble="no supervisor runs in /run/shop")
    assert after[0].startswith("no supervisor answers for 4 s: no supervisor runs in /run/shop;")
    assert "what was known last is below" in " ".join(after[:2])
    assert after[2:8] == before[:6]
    first = frame(Moment(status, AT, "gone"), {}, TopView(80, 24), AT)[0]
    assert first[0][1] == "red"
    assert shown(None)[0] == "waits for an answer"


def test_where_it_listens() -> None:
    """Each listener, and in red what is wrong with one; and that it is cordoned."""
    unix = ListenerView("web", "unix:/run/s", trouble="its socket file is gone", state="added")
    status = replace(forty(), listeners=[ListenerView("127.0.0.1:80", "127.0.0.1:80"), unix], cordoned_for=61.0)
    lines = shown(status)
    assert lines[1] == "  listens   127.0.0.1:80, web unix:/run/s (added)"
    assert lines[2] == "            unix:/run/s: its socket file is gone: nobody can connect"
    assert lines[3] == "  cordoned  for 1m01s: no new clients are to be sent"


# Workers


def test_the_figures_of_a_worker() -> None:
    """In the columns under their titles; without a second look there are no rates."""
    status = forty()
    rates: Rates = {("1.7", 4107): Rate(0.634, 1234.5), (SUPERVISOR, 4000): Rate(0.012)}
    lines = shown(status, rates=rates)
    titles, row = find(lines, "worker", "connections"), find(lines, "  1.7 ")
    ends = {title: titles.index(title) + len(title) for title in ("cpu %", "mem", "req/s", "busy", "lag ms")}
    figures = {title: row[:end].split()[-1] for title, end in ends.items()}
    assert figures == {"cpu %": "63.4", "mem": "37M", "req/s": "1234", "busy": "4", "lag ms": "7"}
    assert row.split()[7] == "11"
    assert "cpu 1.2 %  mem 40M" in lines[0]
    assert find(lines, "  1.8 ").split()[2:5] == ["-", "38M", "-"]


def test_forty_workers() -> None:
    """Those that there is no room for are counted; with more lines, or on a page of no limit, more are shown."""
    lines = shown(forty(), events=50)
    number = sum(bool(re.match(r"  1\.\d+ ", line)) for line in lines)
    assert find(lines, "more workers") == f"    and {40 - number} more workers"
    assert number >= 8
    assert find(lines, "event number 49"), "the newest event is there all the same"
    tall = shown(forty(), TopView(80, 60), events=50)
    assert sum(bool(re.match(r"  1\.\d+ ", line)) for line in tall) == 40
    assert not any("more worker" in line for line in tall)
    plain_page = shown(forty(), TopView(80, None), events=50)
    assert sum(bool(re.match(r"  1\.\d+ ", line)) for line in plain_page) == 40
    assert plain_page[-1].endswith("event number 49")


def test_two_large_generations() -> None:
    """Both have a part of the lines, and each says how many it does not show."""
    one = forty().generations[0]
    two = GenerationView(2, "serving", "shop@2", [busy_supervisor.worker(n, generation=2) for n in range(1, 41)])
    lines = shown(replace(forty(), generations=[replace(one, state="draining"), two]))
    assert sum("more workers" in line for line in lines) == 2
    assert find(lines, "  2.1 ")
    assert find(lines, "  1.1 ")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("height", [1, 2, 5, 10, 24, 70])
def test_any_size(width: int, height: int) -> None:
    """What is shown fits, and the keys stay in the last line; narrow terminals have fewer columns, wide ones more."""
    view = TopView(width, height, keys=" q quit", said=("no  " + "because " * 40, "red"))
    lines = shown(forty(), view, events=20)
    assert lines[-1] == " q quit"
    titles = next((line for line in lines if "worker " in line and "state" in line), "")
    if titles and width >= 40:
        expected = {40: "cpu %", 60: "req/s", 80: "lag ms", 120: "pid", 200: "age"}[width]
        assert expected in titles
        assert width >= 80 or "pid" not in titles
    for page in ("workers", "events"):
        shown(forty(), TopView(width, height, page, question="reload? y/n"), events=200, trouble="gone " * 30)


def test_events_fill_the_screen() -> None:
    """On their page: as many of the newest as there is room for, the last one last."""
    lines = shown(forty(), TopView(80, 24, "events", " q quit"), events=200)
    assert lines[-2].endswith("event number 199")
    assert sum("event number" in line for line in lines) == 20
    assert not any("1.1 " in line for line in lines)


def test_marks_are_told_apart_without_colours() -> None:
    """No two classes have the same, one that is not known has another; and all that are there are explained."""
    assert len({mark for mark, _ in MARKS.values()} | {"?"}) == len(MARKS) + 1
    lines = shown(forty({"idle": 3, "websocket": 2, "from-the-future": 1, "background": 7}), TopView(120, 70))
    explained = find(lines, "background 280")
    assert "w websocket 80   . idle 120   ? from-the-future 40" in explained
    assert "6 " in find(lines, "  1.1 ")
    assert find(lines, "  1.1 ").rpartition(" ")[2].strip("w.?") == ""
    made = frame(Moment(forty(), AT), {}, TopView(80, 24), AT)
    coloured, bare = ("".join(painted(line, colours=how) for line in made) for how in (True, False))
    assert "\x1b[32m" in coloured
    assert set(re.findall(r"\x1b\[([\d;]*)m", bare)) <= {"", "0", "1", "2", "7"}


# Texts of others


@pytest.mark.parametrize("page", ["workers", "events"])
def test_hostile_texts(page: str) -> None:
    """No control of theirs reaches the terminal: what is painted has our own codes, and nothing else."""
    status = hostile(Status)
    told = (hostile(AnyEvent),)
    for trouble, question in (("", ""), (ATTACK, ATTACK)):
        view = TopView(100, 40, page, ATTACK, question, (ATTACK, "red"))  # type: ignore[arg-type]
        lines = frame(Moment(status, AT, trouble, told), averages(status), view, AT + 1)
        for line in lines:
            text = re.sub(r"\x1b\[[\d;]*m", "", painted(line, colours=True))
            assert text.isprintable() or not text, ascii(text)
            assert not text.startswith("ok  gen 9")
            assert cells(text) <= 100


def test_wide_characters() -> None:
    """They take two columns, and none is cut in half."""
    status = replace(forty(), name="商店" * 60)
    for width in (39, 40, 41):
        lines = shown(status, TopView(width, 24))
        assert lines[0].endswith(">")
        assert cells(lines[0]) >= width - 1
