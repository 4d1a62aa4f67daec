"""The record that a supervisor leaves for the next one: read whole, or refused, whatever has become of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from stillup.core.commands import SetTimer
from stillup.core.events import Event, Exited, TimerFired, TookOver
from stillup.core.model import HISTORY, Fleet, Release
from stillup.core.policy import Policy
from stillup.core.rebuild import consistent
from stillup.core.states import GenerationState, RolloutState, WorkerState
from stillup.core.step import step
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from stillup.errors import PeerError, Refused
from stillup.wire.record_format import SCHEMA, WHOLE, ListenerRecord, Record, decode, encode, lasting
from tests.core.story import NEW, OLD, SAID, Story, serving

KEY = "0123456789abcdef" * 4
GOLDEN = Path(__file__).with_name("records")
"""A record of each schema, as a supervisor of its time wrote it."""
NUMBER = st.integers(0, 2**64 - 1)
LISTENERS = st.builds(ListenerRecord, st.text(), st.text(), NUMBER, st.none() | st.tuples(NUMBER, NUMBER))
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """Any fleet that can come to be."""
    story = Story(draw(st.integers(1, 3)))
    if draw(st.booleans()):
        story.live([])
        story.come_to_serve()
    story.live(draw(st.lists(st.tuples(st.integers(0, len(SAID) - 1), st.integers(0, 5)), max_size=25)))
    return story.fleet


def record_of(fleet: Fleet, *listeners: ListenerRecord) -> Record:
    return Record(SCHEMA, "boot", KEY, 2, fleet, listeners, (7, 8), {1: "a nonce"}, reexecs=3)


def rich() -> Record:
    """A record with something of everything in it."""
    story = serving(2)
    story.reload()
    story.ready(3, 4)
    story.serve(3, 4)
    story.tell(SAID[5](3), SAID[11](3))
    story.reload(OLD)
    story.tell(SAID[0](7), SAID[4](7))
    return record_of(story.fleet, ListenerRecord("web", "127.0.0.1:0", 5), ListenerRecord("u", "unix:/s", 6, (1, 2)))


# Read whole


@given(fleet=fleets(), listeners=st.lists(LISTENERS, max_size=3), wanted=st.integers(1, 9))
def test_round_trip(fleet: Fleet, listeners: list[ListenerRecord], wanted: int) -> None:
    """Whatever a fleet is, the next supervisor reads all of it that lasts; of one that has stopped nothing is left."""
    record = replace(record_of(fleet, *listeners), workers_wanted=wanted)
    text = encode(record)
    if not consistent(fleet):
        assert fleet.state == "stopped"
        with pytest.raises(PeerError, match="contradict"):
            decode(text)
        return
    assert decode(text) == replace(record, fleet=lasting(fleet))


def test_what_lasts() -> None:
    """What workers report every second is not written, nor is what an operator says anew at each start."""
    story = serving(1, Policy(boot_timeout=7.0))
    story.tell(SAID[5](1))
    worker = lasting(story.fleet).workers[1]
    assert (worker.figures, worker.reported) == (WorkerFigures(), 0.0)
    assert (worker.recycle, worker.pid, worker.recycle_since) == ("old", 101, 60.0)
    assert lasting(story.fleet).policy == Policy()
    before = encode(record_of(story.fleet))
    story.now += 1
    story.tell(SAID[5](1))
    assert encode(record_of(story.fleet)) == before


def test_old_rollouts_are_written_in_short() -> None:
    """Of rollouts that have long ended only what is shown is written: an environment is long, and they are many."""
    large = replace(OLD, environment={f"VARIABLE_{n}": "x" * 100 for n in range(100)})
    story = serving(1)
    for _ in range(HISTORY + 10):
        story.reload(large)
    text = encode(record_of(story.fleet))
    whole = sum(bool(rollout.release.environment) for rollout in decode(text).fleet.rollouts)
    assert whole == WHOLE
    assert len(text) < 110_000
    assert {rollout.release.label for rollout in decode(text).fleet.rollouts} == {"srv/old"}


def test_a_rollout_that_waits_is_written_whole() -> None:
    """A rollout that is yet to begin keeps its release, however long ago it was asked for."""
    story = serving(1)
    story.reload(replace(NEW, environment={"A": "1"}))
    story.fleet = replace(story.fleet, rollouts=story.fleet.rollouts[::-1] + serving(1).fleet.rollouts * 3)
    assert lasting(story.fleet).rollouts[0].release.environment == {"A": "1"}
    assert lasting(story.fleet).rollouts[1].state is RolloutState.DONE


@pytest.mark.parametrize("text", ["caf\udce9", "\udcff\udcfe", "\x00", "\u2028", "\U0001f600", '"\\'])
def test_what_is_no_utf8(text: str) -> None:
    """A variable or a path may be any bytes, as Python has them: it is what it was when it is read."""
    release = Release("a:b", "/usr/bin/python3", f"/srv/{text}", environment={text: text})
    story = Story()
    story.reload(release)
    assert decode(encode(record_of(story.fleet))).fleet.rollouts[0].release == release


# Of another version


def test_yesterdays_record() -> None:
    """A record that a supervisor of this schema once wrote is read, and is what it was."""
    record = decode((GOLDEN / f"{SCHEMA}.json").read_bytes())
    fleet = record.fleet
    assert (record.boot, record.key, record.workers_wanted, record.queue) == ("boot", KEY, 2, (7, 8))
    assert record.listeners[1] == ListenerRecord("u", "unix:/s", 6, (1, 2))
    assert (record.nonces, record.reexecs) == ({1: "a nonce"}, 0)
    assert {number: generation.state for number, generation in fleet.generations.items()} == {
        1: GenerationState.DRAINING,
        2: GenerationState.SERVING,
        3: GenerationState.BOOTING,
    }
    assert {serial: worker.state for serial, worker in fleet.workers.items()} == {
        1: WorkerState.DRAINING,
        2: WorkerState.DRAINING,
        3: WorkerState.SERVING,
        4: WorkerState.SERVING,
        5: WorkerState.SPAWNED,
        6: WorkerState.SPAWNED,
        7: WorkerState.STOPPING,
        8: WorkerState.SPAWNED,
        9: WorkerState.SPAWNED,
    }
    assert (fleet.workers[3].pid, fleet.workers[3].recycle) == (103, "old")
    assert (fleet.size, fleet.last_rollout, fleet.last_worker) == (3, 3, 9)
    assert fleet.generations[2].release == NEW
    assert fleet.pending is not None
    assert fleet.pending.release == OLD


def test_a_record_of_before_the_first_release() -> None:
    """A record of schema 1, which was never released, is refused in one line."""
    with pytest.raises(PeerError, match=f"^it has schema 1, this version reads {SCHEMA}$"):
        decode((GOLDEN / "1.json").read_bytes())


def walk(plain: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a tree, those within others first."""
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in inner:
        yield from walk(value, (*path, key))
        yield (*path, key)


def at(plain: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        plain = plain[key]
    return plain


def test_unknown_fields_are_passed_over() -> None:
    """What a later version writes beside what is known here changes nothing."""
    plain = json.loads(encode(rich()))
    records = [path for path in walk(plain) if isinstance(at(plain, path), dict) and "spawned" in at(plain, path)]
    assert len(records) == len(rich().fleet.workers)
    for path in [(), ("fleet",), ("fleet", "generations", "2"), ("fleet", "rollouts", 1), *records]:
        at(plain, path)["invented_later"] = {"deep": [1, 2]}
    assert decode(json.dumps(plain).encode()) == decode(encode(rich()))


def optional(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every field that has a default, in a tree of Structs."""
    if isinstance(value, msgspec.Struct):
        for entry in fields(value):
            if not entry.required:
                yield (*path, entry.name)
            yield from optional(getattr(value, entry.name), (*path, entry.name))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from optional(inner, (*path, str(key)))
    elif isinstance(value, tuple):
        for number, inner in enumerate(value):
            yield from optional(inner, (*path, number))


def test_missing_fields_have_their_defaults() -> None:
    """A record of a version that lacked a field is read as if it had the field's default."""
    record = replace(rich(), fleet=Fleet(), listeners=(ListenerRecord("web", "127.0.0.1:0", 5),))
    paths = set(optional(record))
    assert {("nonces",), ("queue",), ("fleet", "rollouts"), ("listeners", 0, "file")} <= paths
    for path in paths:
        plain = json.loads(encode(record))
        del at(plain, path[:-1])[path[-1]]
        decode(json.dumps(plain).encode())
    least = {"schema": SCHEMA, "boot": "boot", "key": KEY, "workers_wanted": 2, "fleet": {}}
    assert decode(json.dumps(least).encode()) == Record(SCHEMA, "boot", KEY, 2, Fleet())


@pytest.mark.parametrize("schema", [0, 1, 99, -1, "1", None, [], {}, 1.5, True])
def test_other_schemas_are_refused(schema: object) -> None:
    """A record that says that it has to be understood in another way is not read, and the reason says so."""
    plain = {**json.loads(encode(rich())), "schema": schema}
    with pytest.raises(PeerError, match="schema" if isinstance(schema, int) else None):
        decode(json.dumps(plain).encode())


# Of no version at all


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"null", b"\xff", b"{" * 100_000, b"1" * 5000, b'{"schema":1}'])
def test_no_record(text: bytes) -> None:
    """An empty file, other JSON, and what is no JSON are refused."""
    with pytest.raises(PeerError, match=r"^it "):
        decode(text)


@pytest.mark.parametrize("key", ["", "00", KEY[:-1], KEY + "00", "x" * 64, KEY.upper(), "é" * 64])
def test_a_key_that_is_none(key: str) -> None:
    """Nonces that are made of a key that could be guessed, or of none, would let strangers in."""
    with pytest.raises(PeerError, match="contradict"):
        decode(encode(replace(rich(), key=key)))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_numbers_that_are_none(number: str) -> None:
    """A time that is no number is refused, since every comparison with it would be wrong."""
    text = encode(rich()).decode()
    assert '"asked": 0.0' in text
    with pytest.raises(PeerError, match="is no number"):
        decode(text.replace('"asked": 0.0', f'"asked": {number}').encode())


def end(record: Record, alive: frozenset[int]) -> None:
    """Take a fleet over and let everything in it end: whatever is on record, no decision may fail on it."""
    fleet, now, queue = record.fleet, 0.0, list[Event]([TookOver(alive)])
    for _ in range(40):
        timers = []
        for event in queue:
            with suppress(Refused):
                decision = step(fleet, event, now)
                fleet = decision.fleet
                timers += [c.timer for c in decision.commands if isinstance(c, SetTimer)]
        if not now:
            assert not fleet.workers.keys() & (record.fleet.workers.keys() - alive), "it was not taken over"
        # Not before time goes on: one that comes too early may be set anew, to the end of a drain.
        queue = [*map(TimerFired, timers), *(Exited(serial, "exited 1") for serial in fleet.workers)]
        now += 100.0
    draining = (GenerationState.DRAINING, GenerationState.STOPPING)
    assert not any(generation.state in draining for generation in fleet.generations.values())


@given(data=st.data(), fleet=fleets())
def test_a_value_changed(data: st.DataObject, fleet: Fleet) -> None:
    """One value replaced by another, of its own kind or not: it is refused, or a fleet that can be taken over."""
    text = encode(record_of(fleet))
    plain, whole = json.loads(text), json.loads(text)
    paths = list(walk(whole))
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(paths))
        like = st.sampled_from([at(whole, other) for other in paths if other[-1] == path[-1]])
        states = st.sampled_from([*WorkerState, *GenerationState, *RolloutState])
        with suppress(KeyError, IndexError, TypeError):  # the value before has taken this one away
            at(plain, path[:-1])[path[-1]] = data.draw(like | states | JSON)
    with suppress(PeerError):
        record = decode(json.dumps(plain).encode())
        assert consistent(record.fleet)
        end(record, frozenset(data.draw(st.sets(st.sampled_from([0, *record.fleet.workers])))))


@given(data=st.data())
def test_bytes_changed(data: st.DataObject) -> None:
    """A file cut off anywhere is no record; with a byte changed it is none, or one that can be taken over."""
    text = encode(rich())
    place = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(PeerError):
        decode(text[:place])
    changed = text[:place] + bytes([data.draw(st.integers(0, 255))]) + text[place + 1 :]
    with suppress(PeerError):
        end(decode(changed), frozenset())


@given(text=st.binary() | JSON.map(lambda plain: json.dumps(plain).encode()))
def test_noise(text: bytes) -> None:
    """Bytes of any kind, and JSON of any kind, are no record, and nothing else comes of them."""
    with pytest.raises(PeerError):
        decode(text)
