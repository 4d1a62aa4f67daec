"""Events: every announcement of the core has a shape, every shape is announced, and none says what is not for all."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stillup
from stillup.core.states import LOST
from stillup.errors import PeerError
from stillup.wire import event_encoding
from stillup.wire.event_encoding import AnyEvent, Entry
from stillup.wire.event_envelope import Envelope
from stillup.wire.event_feed import KINDS, LONGEST, Event, FeedGap, PrincipalView, RequestAudited, log_line, make
from stillup.wire.event_types import RolloutAborted
from stillup.wire.service_event_types import ServiceStopping
from stillup.wire.worker_event_types import WorkerDied

AT = datetime(2026, 3, 1, 12, 30, 0, 250, tzinfo=UTC)
NOT_ANNOUNCED = {
    *("listener.added", "listener.closed", "preload.unfit", "release.changed"),
    *("request.audited", "requests.denied", "feed.gap"),
}
"""The kinds that do not come from the core."""
COMMON = set(Envelope.__struct_fields__)


def made(kind: str, seq: int = 1, /, **data: object) -> Envelope:
    return make(kind, data, seq=seq, at=AT, monotonic=7.5)


def announced() -> dict[str, set[str]]:
    """What the core's source announces: the kinds, and the names of their data."""
    found: dict[str, set[str]] = {}
    for path in (Path(stillup.__file__).parent / "core").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "announce":
                kind = node.args[0]
                assert isinstance(kind, ast.Constant), f"{path.name}:{node.lineno}: which kind?"
                names = {keyword.arg or "" for keyword in node.keywords}
                assert found.setdefault(str(kind.value), names) == names, kind.value
    return found


def test_every_announcement_has_a_shape_and_every_shape_is_announced() -> None:
    """The core's announcements and the shapes of events are the same, but for what is kept back."""
    shapes = {kind: set(shape.__struct_fields__) - COMMON for kind, shape in KINDS.items()}
    assert {kind: names - {"output", "message"} for kind, names in announced().items()} == {
        kind: names for kind, names in shapes.items() if kind not in NOT_ANNOUNCED
    }
    assert shapes.keys() >= NOT_ANNOUNCED


def test_every_kind_is_documented() -> None:
    """Each kind says in words what has happened, and with how much noise."""
    for kind, shape in KINDS.items():
        assert shape.__doc__, kind
        assert shape.line, kind
        assert shape.level in ("DEBUG", "INFO", "WARNING", "ERROR"), kind


def test_an_event() -> None:
    """An event is its envelope and its kind's own fields; times are RFC 3339 in UTC and monotonic seconds."""
    event = made("rollout.cut-over", 3, rollout=2, generation=2, previous=1)
    assert msgspec.to_builtins(event) == {
        "kind": "rollout.cut-over",
        "seq": 3,
        "at": "2026-03-01T12:30:00.000250Z",
        "monotonic": 7.5,
        "text": "gen 2 serves",
        "rollout": 2,
        "generation": 2,
        "previous": 1,
    }
    assert event.loudness() == "INFO"
    assert msgspec.json.decode(msgspec.json.encode(event), type=Event) == event


def test_output_is_in_no_event() -> None:
    """What a worker has printed, or said of its failure, is for operators: no event of its death or boot has it."""
    private = {"message": "no secret://db", "output": "a secret"}
    died = made("worker.died", worker="1.1", pid=5, why="1.1 (pid 5) exited 1", **private)
    aborted = made("rollout.aborted", rollout=1, generation=1, reason="import", why="1.1 failed", **private)
    held_up = made("worker.held-up", worker="1.1", **private)
    overdue = made("worker.overdue", worker="1.1", connections={"stream": 2}, held_up=True, **private)
    assert (type(died), type(aborted)) == (WorkerDied, RolloutAborted)
    assert b"secret" not in msgspec.json.encode([died, aborted, held_up, overdue])


@pytest.mark.parametrize(("said", "more"), [("no db\n", ": no db\\n"), ("", "")])
def test_the_log_has_what_the_app_said(said: str, more: str) -> None:
    """The log's line of an event goes on with what the app said of its failure, in one line; with its output never."""
    data = {"worker": "1.1", "pid": 5, "why": "1.1 (pid 5) exited 1", "message": said, "output": "a secret"}
    died = made("worker.died", **data)
    assert log_line(died, data) == f"worker 1.1 (pid 5) exited 1; its slot is filled again{more}"
    assert log_line(died, {}) == died.text


@pytest.mark.parametrize(
    ("kind", "data", "error"),
    [
        ("rollout.lost", {}, KeyError),
        ("rollout.waiting", {}, msgspec.ValidationError),
        ("rollout.waiting", {"rollout": "2"}, msgspec.ValidationError),
        ("rollout.waiting", {"rollout": 2, "generation": 1}, msgspec.ValidationError),
    ],
)
def test_another_shape_is_a_bug(kind: str, data: Mapping[str, object], error: type[Exception]) -> None:
    """An unknown kind, a field too few or too many, or of another type, makes no event."""
    with pytest.raises(error):
        made(kind, **data)


@pytest.mark.parametrize(
    ("reason", "level", "text"),
    [
        ("import", "ERROR", "gen 2 rejected (import): 2.1 no such module"),
        ("superseded", "INFO", "reload 3 is off: superseded"),
        ("stopping", "INFO", "reload 3 is off: stopping"),
        (LOST, "INFO", "reload 3 is off: supervisor-lost"),
    ],
)
def test_nobodys_fault(reason: str, level: str, text: str) -> None:
    """A rollout that ended without a fault of its release reads, and sounds, like that."""
    event = made("rollout.aborted", rollout=3, generation=2, reason=reason, why="2.1 no such module", output="")
    assert (event.loudness(), event.text) == (level, text)


@pytest.mark.parametrize(("status", "answered"), [(503, "answered 503"), (None, "has not answered")])
def test_a_worker_that_is_not_healthy_yet(status: int | None, answered: str) -> None:
    """Its event says what the probe was answered, or that it was not."""
    event = made("worker.unhealthy", worker="2.1", pid=77, path="/healthz", status=status, seconds=3.2)
    text = f"worker 2.1 (pid 77) is not healthy yet: /healthz {answered}, 3 s after its start"
    assert (event.loudness(), event.text) == ("WARNING", text)


CALLER = {"uid": 1000, "gid": 100, "pid": 77, "login_uid": None, "exe": "/usr/bin/curl"}


@pytest.mark.parametrize(("outcome", "level"), [("accepted", "INFO"), ("stopping", "INFO"), ("denied", "WARNING")])
def test_audit(outcome: str, level: str) -> None:
    """A request's event says who, what and how it ended; a denied one is a warning."""
    data = {"method": "POST", "path": "/v1/reload", "outcome": outcome, "status": 202, "role": "operator"}
    event = made("request.audited", **data, rollout=4, scaling=None, principal=CALLER)
    assert isinstance(event, RequestAudited)
    assert event.principal == PrincipalView(1000, 100, 77, None, "/usr/bin/curl")
    assert event.loudness() == level
    assert event.text.startswith(f"POST /v1/reload: {outcome} (202), asked by uid 1000 gid 100 as 'operator', pid 77")


@pytest.mark.parametrize(
    ("login", "reads"), [(None, "pid 77, exe"), (0, "pid 77, login uid 0, exe"), (1001, "uid 1001, exe")]
)
def test_an_audit_names_who_logged_in_if_anybody_did(login: int | None, reads: str) -> None:
    """A process of a service manager has no login uid, and its line says nothing of one."""
    data = {"method": "POST", "path": "/v1/reload", "outcome": "accepted", "status": 202, "role": "operator"}
    event = made("request.audited", **data, rollout=4, scaling=None, principal={**CALLER, "login_uid": login})
    assert reads in event.text
    assert "None" not in event.text


def test_what_others_chose_is_bounded() -> None:
    """A text that a worker or a caller chose is cut, and any bytes of a file's name are shown in some way."""
    event = made("service.stopping", why="x" * 10 * LONGEST)
    assert len(event.text) == LONGEST
    assert event.text.endswith("…")
    assert len(msgspec.json.encode(event)) < 3 * LONGEST
    begun = made("rollout.begun", rollout=1, generation=1, why="start", release="srv/\udcff")
    assert b"srv/\\\\udcff" in msgspec.json.encode(begun)
    killed = made("worker.killed", worker="1.1", connections={"\udcff" * 2 * LONGEST: 3})
    assert len(msgspec.json.encode(killed)) < 4 * LONGEST


@pytest.mark.parametrize(
    ("connections", "held_up", "why"),
    [
        ({"stream": 2}, True, "2 stream and threads of its app"),
        ({"stream": 2}, False, "2 stream"),
        ({}, True, "threads of its app"),
        ({}, False, "it does not say why"),
    ],
)
def test_a_worker_that_is_overdue(connections: dict[str, int], why: str, *, held_up: bool) -> None:
    """Its event says what holds it, and only the log what the app's threads are called."""
    data = {"worker": "1.1", "connections": connections, "held_up": held_up, "message": "poll" if held_up else ""}
    event = made("worker.overdue", **data)
    assert event.text == f"worker 1.1 did not end its drain in time: {why}"
    assert log_line(event, data) == f"{event.text}: poll" if held_up else event.text


def test_what_was_cut_is_counted() -> None:
    """By class, of the worker that cut it."""
    event = made("connections.cut", worker="1.1", connections={"stream": 2, "in-progress": 1})
    assert event.text == "worker 1.1 cut 2 stream, 1 in-progress: their time to drain was over"


def test_a_text_is_a_line() -> None:
    """Whatever stands in a path or in an app's words, it looks like no other line of the log, and moves no cursor."""
    event = made("service.stopping", why="a\nERROR \x1b[2Jb\r\u2028\u00e4")
    assert event.text == r"stopping (a\nERROR \x1b[2Jb\r\u2028ä)"
    assert isinstance(event, ServiceStopping)
    assert event.why == "a\nERROR \x1b[2Jb\r\u2028ä", "programs get it as it is"


# Entries


def entries(*numbers: int) -> list[Entry]:
    return [event_encoding.entry(made("rollout.waiting", n, rollout=n)) for n in numbers]


def test_an_entry_as_a_line_and_as_a_message() -> None:
    """NDJSON is a line an event; an event stream's message has its number as id and its kind as event."""
    (one,) = entries(12)
    assert one.ndjson == one.json + b"\n"
    assert one.sse == b"id: 12\nevent: rollout.waiting\ndata: " + one.json + b"\n\n"
    assert b"\n" not in one.json
    known = event_encoding.parse(one.json)
    assert (known.kind, known.seq, known.at, known.text) == ("rollout.waiting", 12, AT, made_text(12))


def made_text(number: int) -> str:
    return f"reload {number} waits until an older generation has left"


def test_what_another_version_says() -> None:
    """A reader understands of an event what it knows: all, or what every event has."""
    event = made("rollout.waiting", 3, rollout=3)
    line = msgspec.json.encode(event)
    assert event_encoding.decode(line) == event
    assert event_encoding.decode(line.replace(b"{", b'{"more":1,', 1)) == event
    known = event_encoding.decode(line.replace(b"rollout.waiting", b"moon.full"))
    assert isinstance(known, AnyEvent)
    assert (known.kind, known.seq, known.text) == ("moon.full", 3, made_text(3))
    with pytest.raises(PeerError, match="missing required field"):
        event_encoding.decode(b'{"kind":"moon.full"}')


def test_what_is_written_is_read() -> None:
    """A file has its events, whatever number it begins with, and those of kinds that only another version knows."""
    written = entries(5, 6, 7)
    foreign = written[-1].json.replace(b'"seq":7', b'"seq":8,"more":[1]').replace(b"rollout.waiting", b"moon.full")
    written.append(Entry(8, "moon.full", foreign))
    assert event_encoding.read(b"".join(each.ndjson for each in written)) == written
    assert event_encoding.read(b"") == []


GOOD = b"".join(each.ndjson for each in entries(1, 2))
(THIRD,) = (each.ndjson for each in entries(3))


@pytest.mark.parametrize(
    "bad",
    [
        THIRD[:-1],
        THIRD[:20],
        b"\n",
        b"garbage\n",
        b"\xff\xfe\n",
        b"null\n",
        THIRD.replace(b'"seq":3', b'"seq":-3'),
        THIRD.replace(b'"seq":3', b'"seq":4'),
        THIRD.replace(b'"seq":3', b'"seq":2'),
        THIRD.replace(b'"seq":3', b'"seq":"3"'),
        THIRD.replace(b"rollout.waiting", b"rollout.waiting\\n"),
        THIRD.replace(b'"rollout":3', b'"rollout":"\xff"'),
        THIRD.replace(b"Z", b""),
        THIRD.replace(b"{", b"{\r", 1),
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_good_beginning_is_kept(bad: bytes) -> None:
    """Behind a line that is torn, no event, or not the next one, nothing is believed; before it everything is."""
    assert event_encoding.read(GOOD + bad + THIRD) == entries(1, 2)


@given(st.binary() | st.lists(st.sampled_from([GOOD, THIRD, GOOD[:30], b"{}", b"\n", b"\0"])).map(b"".join))
def test_any_bytes(content: bytes) -> None:
    """Whatever is in the file, its good beginning is read, and numbered without a gap."""
    found = event_encoding.read(content)
    assert content.startswith(b"".join(each.ndjson for each in found))
    numbers = [each.seq for each in found]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else not numbers


@given(st.integers(0, len(GOOD + THIRD)))
def test_cut_anywhere(length: int) -> None:
    """A file that is cut at any byte has the events that are whole."""
    assert event_encoding.read((GOOD + THIRD)[:length]) == entries(1, 2, 3)[: (GOOD + THIRD)[:length].count(b"\n")]


def test_numbers_begin_with_one() -> None:
    """No event has the number 0; a gap's may be, when nothing but the first is to come."""
    zero = event_encoding.entry(made("feed.gap", 0, since=7, next=1))
    assert event_encoding.read(zero.ndjson) == []
    assert event_encoding.parse(zero.json).seq == 0


def test_a_gap() -> None:
    """A gap's number is the last one that is missing, so that going on from it misses nothing more."""
    gap = made("feed.gap", 40, since=12, next=41)
    assert isinstance(gap, FeedGap)
    assert gap.text == "events were missed: after 12 the next that is known is 41"


@pytest.mark.parametrize(
    ("closed", "told", "reads"), [(0, 0, "0 closed"), (0, 5, "5 told to close"), (2, 5, "2 closed, 5 told to close")]
)
def test_who_was_told_to_close_is_not_called_none_closed(closed: int, told: int, reads: str) -> None:
    """The end of a generation says of both how many there were."""
    data = {"generation": 2, "moved": 3, "closed": closed, "told_to_close": told, "sessions": 0}
    event = make("generation.gone", data, seq=1, at=datetime(2026, 1, 1, tzinfo=UTC), monotonic=1.0)
    assert event.text == f"gen 2 has left: 3 connections moved on, {reads}"


def text_of(kind: str, **data: object) -> str:
    """How an event reads."""
    return make(kind, data, seq=1, at=datetime(2026, 1, 1, tzinfo=UTC), monotonic=1.0).text


GONE = {"generation": 1, "moved": ..., "closed": 0, "sessions": 0}
BACK = {"rollout": 1, "generation": 1, "release": "srv/1", "seconds": 1}
DENIALS = {"seconds": 60.0, "uid": 1, "uids": 1}


@pytest.mark.parametrize(
    ("kind", "data", "one", "two"),
    [
        ("generation.gone", {**GONE, "told_to_close": 0}, "1 connection moved", "2 connections moved"),
        ("generation.gone", {**GONE, "told_to_close": 1}, "1 connection moved", "2 connections moved"),
        ("rollout.rolled-back", {**BACK, "deaths": ...}, "(1 death within 1 s)", "(2 deaths within 1 s)"),
        (
            "scaling.aborted",
            {"scaling": 1, "workers": ..., "reason": "stopping"},
            "to 1 worker is not",
            "to 2 workers is not",
        ),
        ("service.scaled", {"generation": 1, "workers": ...}, "1 worker wanted", "2 workers wanted"),
        (
            "service.taken-over",
            {"generation": 1, "workers": ..., "died": ...},
            "1 worker lives on, 1 has",
            "2 workers live on, 2 have",
        ),
        (
            "worker.waits",
            {"worker": "1.1", "deaths": ..., "seconds": 2},
            "1 time in a row; next start in 2.0 s",
            "2 times in",
        ),
        ("worker.wears-fast", {"worker": "1.1", "why": "x", "times": ..., "seconds": 2.0}, "1 time in", "2 times in"),
        ("connections.lost", {"worker": "1.1", "connections": ...}, "lost 1 connection on", "lost 2 connections on"),
        ("requests.denied", {**DENIALS, "count": ...}, "1 more request was denied", "2 more requests were denied"),
    ],
)
def test_one_is_no_plural(kind: str, data: dict[str, object], one: str, two: str) -> None:
    """What an event counts reads as its number wants it; a time has its form all the same."""
    for number, reads in ((1, one), (2, two)):
        text = text_of(kind, **{name: number if value is ... else value for name, value in data.items()})
        assert reads in text


def test_a_configuration_that_was_read_again_reads_by_what_each_key_has_come_to() -> None:
    """What there is none of is not spoken of."""
    nothing: dict[str, list[str]] = {"needs_reexec": [], "needs_restart": [], "file_gone": []}
    read = text_of("configuration.read", rollout=2, applied=["app", "ws"], overridden=["port (--port)"], **nothing)
    assert read == "configuration read again; applied: app, ws; overridden: port (--port)"


def test_what_crashes_and_stays_reads_by_why_it_stays() -> None:
    """What it had replaced is there no more, or it was a rollback itself."""
    about = {"rollout": 2, "generation": 2, "release": "srv/1"}
    assert text_of("rollback.refused", **about, reason="release-overwritten").endswith(
        "nothing to go back to: srv/1 was changed in place, or removed (release-overwritten)"
    )
    stays = text_of("rollback.refused", **about, reason="rolls-back")
    assert stays == "gen 2 crashes, and was a rollback itself: it stays (rolls-back)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (10.0, "worker 1.1 (pid 5) has not let go of leading after 10 s: killed, so that another can lead"),
        (None, "worker 1.1 (pid 5) holds the leader's lock, and is not to lead: killed"),
    ],
)
def test_a_leader_that_is_killed(seconds: float | None, text: str) -> None:
    """Since it did not let go, or though it had, by its own word."""
    assert made("leader.killed", worker="1.1", pid=5, seconds=seconds).text == text
