"""Writing the record: before what it tells of, as often as something changes, and whatever the disk does."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillup.core.events import AbortAsked, Configured, Exited, ReloadAsked, Reported
from stillup.core.policy import Policy
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from stillup.daemon.loop import event_queue as queue_module
from stillup.daemon.state import writer_thread as module
from stillup.daemon.state.record_writer import RecordWriter, read
from stillup.daemon.state.writer_thread import SLOW
from stillup.errors import Refused
from stillup.host.processes import boot_id
from stillup.host.runtime_directory import RuntimeDirectory, claim
from stillup.wire import record_format
from stillup.wire.record_format import ListenerRecord, Record
from tests.asgi.event_loops import until
from tests.core.story import NEW, Story, serving
from tests.daemon.example_engines import EFFECTS, engine_of

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RuntimeDirectory]:
    """A runtime directory of ours."""
    held = claim(str(tmp_path / "rt"))
    yield held
    held.remove("record.json")
    held.close()


def in_the_way(directory: RuntimeDirectory) -> Path:
    """A directory in the record's place: a disk on which nothing can be written."""
    path = Path(directory.file("record.json"))
    path.unlink(missing_ok=True)
    path.mkdir()
    return path


def found(directory: RuntimeDirectory) -> Record:
    known = read(directory)
    assert known is not None
    return known


async def test_what_is_saved_is_read(directory: RuntimeDirectory) -> None:
    """What a supervisor has written down its successor reads, and knows the workers by the same nonces."""
    record_writer = RecordWriter(directory, 3)
    record_writer.holds([ListenerRecord("web", "127.0.0.1:0", 5)], (7, 8))
    record_writer.claimed({2: "a claimed nonce"})
    story = serving(2)
    assert await record_writer.save(story.fleet, asked=False) == ""
    known = found(directory)
    assert known.fleet == record_format.lasting(story.fleet)
    assert (known.workers_wanted, known.queue, known.listeners) == (3, (7, 8), record_writer.latest.listeners)
    successor = RecordWriter(directory, 3, known)
    assert [successor.nonce(n) for n in (1, 2, 3)] == [record_writer.nonce(n) for n in (1, 2, 3)]
    assert successor.nonce(2) == "a claimed nonce"
    for each in (record_writer, successor):
        each.close()


async def test_what_a_reload_brought_is_on_record_once_it_serves(directory: RuntimeDirectory) -> None:
    """A successor compares it with its own number: it would take one that never served for the one in force."""
    record_writer, story = RecordWriter(directory, 1), serving(1)
    asked = ReloadAsked(NEW, "test", configured=Configured(Policy(), 2))

    async def on_record() -> int:
        assert await record_writer.save(story.fleet, asked=False) == ""
        return found(directory).workers_wanted

    story.tell(asked)
    assert (story.fleet.configured, await on_record()) == (2, 1), "it may still be aborted"
    story.tell(AbortAsked("test"))
    assert (story.fleet.size, await on_record()) == (1, 1)
    story.tell(asked)
    story.ready(4, 5)
    story.serve(4, 5)
    assert await on_record() == 2
    story.tell(replace(asked, configured=Configured(Policy(), 3)))
    assert await on_record() == 2
    story.tell(AbortAsked("test"))
    assert await on_record() == 2
    record_writer.close()


async def test_how_long_a_stop_may_take_is_on_record(directory: RuntimeDirectory) -> None:
    """It is what workers grant that `stillup stop` ends without a supervisor; not what a reload's drain may take."""
    policy = Policy(drain_timeout=5.0, stop_timeout=300.0)
    record_writer = RecordWriter(directory, 1, drain_timeout=policy.stop_timeout)
    await record_writer.save(serving(1, policy).fleet, asked=False)
    assert found(directory).drain_timeout == 300.0
    record_writer.close()


async def test_nonces_are_nobodys_guess(directory: RuntimeDirectory) -> None:
    """Each worker has a nonce of its own, and another service's workers have others."""
    one, other = RecordWriter(directory, 1), RecordWriter(directory, 1)
    nonces = [record_writer.nonce(serial) for record_writer in (one, other) for serial in range(1, 20)]
    assert len({*nonces}) == len(nonces)
    assert min(map(len, nonces)) >= 32
    for each in (one, other):
        each.close()


async def test_what_changes_nothing_is_not_written(directory: RuntimeDirectory) -> None:
    """A report of a worker's figures, which comes every second, costs the disk nothing; a change is written."""
    record_writer, story = RecordWriter(directory, 1), serving(1)
    await record_writer.save(story.fleet, asked=False)
    before = os.stat(directory.file("record.json")).st_ino
    story.tell(Reported(1, WorkerFigures({"idle": 3}, 100)))
    await record_writer.save(story.fleet, asked=False)
    assert os.stat(directory.file("record.json")).st_ino == before
    story.reload()
    await record_writer.save(story.fleet, asked=True)
    assert found(directory).fleet.last_rollout == 2
    record_writer.close()


async def test_what_cannot_be_refused(directory: RuntimeDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """What happens all the same, and cannot be written down, takes the record with it: it would tell what is not."""
    record_writer, story = RecordWriter(directory, 1), serving(1)
    await record_writer.save(story.fleet, asked=False)
    os.mkdir(directory.file(".record.json.new"))
    story.die(1, age=90.0)
    assert "directory" in await record_writer.save(story.fleet, asked=False)
    assert read(directory) is None
    await record_writer.save(story.fleet, asked=False)
    assert [entry.levelname for entry in caplog.records] == ["ERROR"], "it is said once"
    os.rmdir(directory.file(".record.json.new"))
    caplog.set_level(logging.INFO)
    assert await record_writer.save(story.fleet, asked=False) == ""
    assert found(directory).fleet == record_format.lasting(story.fleet)
    assert caplog.messages[-1] == "the record is written again"
    record_writer.close()


async def test_what_is_refused(directory: RuntimeDirectory) -> None:
    """What is refused because it cannot be written down leaves the record as it was, which tells the truth."""
    record_writer, story = RecordWriter(directory, 1), serving(1)
    await record_writer.save(story.fleet, asked=False)
    before = story.fleet
    os.mkdir(directory.file(".record.json.new"))
    story.reload()
    assert await record_writer.save(story.fleet, asked=True)
    assert await record_writer.save(before, asked=False) == "", "there is nothing to be written"
    assert found(directory).fleet == record_format.lasting(before)
    os.rmdir(directory.file(".record.json.new"))
    record_writer.close()


async def test_from_the_start(directory: RuntimeDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that takes nothing from the first moment on is no reason not to serve, and is told of."""
    blocked = in_the_way(directory)
    record_writer = RecordWriter(directory, 1)
    assert await record_writer.save(serving(1).fleet, asked=False) == "Is a directory"
    assert "the record cannot be written: Is a directory" in caplog.messages
    assert read(directory) is None
    blocked.rmdir()
    record_writer.close()


class Stuck:
    """A runtime directory on a disk that does not answer until it is let go."""

    def __init__(self, directory: RuntimeDirectory) -> None:
        self.path = directory.path
        self.created = directory.created
        self.go = threading.Event()
        self.written: list[int] = []

    def replace(self, _: str, content: bytes) -> None:
        self.go.wait(20)
        self.written.append(record_format.decode(content).fleet.last_rollout)


@pytest.fixture
def disk(directory: RuntimeDirectory) -> Iterator[Stuck]:
    """A disk that answers at the latest when the test is over."""
    stuck = Stuck(directory)
    yield stuck
    stuck.go.set()


async def test_a_disk_that_does_not_answer(disk: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for once; then nothing waits for it any more, and what is true when it answers is written."""
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    story, loop = Story(), asyncio.get_running_loop()
    record_writer = RecordWriter(disk, 1)  # type: ignore[arg-type]
    story.reload()
    began = loop.time()
    assert await record_writer.save(story.fleet, asked=False) == SLOW
    assert 0.1 < loop.time() - began < 15
    monkeypatch.setattr(module, "PATIENCE", 20.0)
    began = loop.time()
    for _ in range(50):
        story.reload()
        assert await record_writer.save(story.fleet, asked=False) == SLOW
    assert loop.time() - began < 15, "not as long as one takes now"
    disk.go.set()
    await until(lambda: not record_writer._writer.busy)
    assert await record_writer.save(story.fleet, asked=False) == ""
    assert disk.written == [1, 51]
    record_writer.close()


async def test_a_request_waits_for_the_disk(disk: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is done once the disk answers; what happens in the meantime is dealt with."""
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    record_writer = RecordWriter(disk, 1)  # type: ignore[arg-type]
    engine = engine_of(serving(1).fleet, record_writer)
    running = asyncio.create_task(engine.run(EFFECTS))
    reloading = asyncio.create_task(engine.ask(ReloadAsked(NEW, "test")))
    await until(lambda: record_writer._writer.busy)
    engine.submit(Exited(1, "killed by SIGKILL"))
    await until(lambda: 1 not in engine.fleet.workers)
    assert (reloading.done(), engine.fleet.last_rollout) == (False, 1)
    monkeypatch.setattr(module, "PATIENCE", 20.0)
    disk.go.set()
    assert (await reloading).last_rollout == 2
    assert disk.written[-1] == 2
    running.cancel()
    record_writer.close()


async def test_a_request_does_not_wait_for_ever(disk: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that goes on not to answer refuses it, and its waiter hears why."""
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    monkeypatch.setattr(queue_module, "PATIENCE", 0.3)
    record_writer, loop = RecordWriter(disk, 1), asyncio.get_running_loop()  # type: ignore[arg-type]
    engine = engine_of(serving(1).fleet, record_writer)
    running = asyncio.create_task(engine.run(EFFECTS))
    began = loop.time()
    with pytest.raises(Refused, match="not done: the disk does not answer; what serves goes on"):
        await engine.ask(ReloadAsked(NEW, "test"))
    assert 0.2 < loop.time() - began < 15
    assert engine.fleet.last_rollout == 1
    running.cancel()
    record_writer.close()


def rewritten(directory: RuntimeDirectory, **fields: object) -> None:
    plain = json.loads(
        record_format.encode(Record(record_format.SCHEMA, boot_id(), "ab" * record_format.KEY, 1, serving(1).fleet))
    )
    directory.replace("record.json", json.dumps({**plain, **fields}).encode())


def test_a_record_that_is_too_old_is_refused_with_what_to_do(directory: RuntimeDirectory) -> None:
    """Its workers would not come back, and hold the listeners; after a reboot there are none, and it means nothing."""
    rewritten(directory, schema=1)
    with pytest.raises(Refused, match=r"schema 1, this version reads .*: end its workers that are left, remove "):
        read(directory)
    rewritten(directory, schema=1, boot="another")
    assert read(directory) is None


def test_read(directory: RuntimeDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """A record of this boot is read; there may be none; of another boot nobody lives; one that is no use is told of."""
    assert read(directory) is None
    rewritten(directory)
    assert found(directory).fleet == record_format.lasting(serving(1).fleet)
    rewritten(directory, boot="another")
    assert read(directory) is None
    assert caplog.messages == []
    rewritten(directory, schema=99)
    assert read(directory) is None
    assert "it has schema 99" in caplog.messages[-1]
    in_the_way(directory)
    assert read(directory) is None
    assert "cannot be read: Is a directory" in caplog.messages[-1]
    os.rmdir(directory.file("record.json"))


def test_a_key_goes_on(directory: RuntimeDirectory) -> None:
    """A successor keeps the key, so that its own workers' nonces go on where the last one's ended."""
    rewritten(directory)
    known = found(directory)
    record_writer = RecordWriter(directory, 1, replace(known, nonces={}))
    assert record_writer.latest.key == known.key
    record_writer.close()
