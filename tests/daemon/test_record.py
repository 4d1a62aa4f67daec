"""Writing the record: before what it tells of, as often as something changes, and whatever the disk does."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.core.events import Exited, ReloadAsked, Reported
from supervisor.daemon import engine as engine_module
from supervisor.daemon import writer as module
from supervisor.daemon.engine import Engine
from supervisor.daemon.record import Recorder, read
from supervisor.daemon.writer import SLOW
from supervisor.errors import Refused
from supervisor.host.processes import boot_id
from supervisor.host.runtime import RuntimeDirectory, claim
from supervisor.wire import record
from supervisor.wire.record import ListenerRecord, Record
from tests.asgi.running import until
from tests.core.telling import NEW, Story, serving
from tests.daemon.engines import EFFECTS

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
    recorder = Recorder(directory, 3)
    recorder.holds([ListenerRecord("web", "127.0.0.1:0", 5)], (7, 8))
    recorder.claimed({2: "a claimed nonce"})
    story = serving(2)
    assert await recorder.save(story.fleet, asked=False) == ""
    known = found(directory)
    assert known.fleet == record.lasting(story.fleet)
    assert (known.workers_wanted, known.queue, known.listeners) == (3, (7, 8), recorder.latest.listeners)
    successor = Recorder(directory, 3, known)
    assert [successor.nonce(n) for n in (1, 2, 3)] == [recorder.nonce(n) for n in (1, 2, 3)]
    assert successor.nonce(2) == "a claimed nonce"
    for each in (recorder, successor):
        each.close()


async def test_nonces_are_nobodys_guess(directory: RuntimeDirectory) -> None:
    """Each worker has a nonce of its own, and another service's workers have others."""
    one, other = Recorder(directory, 1), Recorder(directory, 1)
    nonces = [recorder.nonce(serial) for recorder in (one, other) for serial in range(1, 20)]
    assert len({*nonces}) == len(nonces)
    assert min(map(len, nonces)) >= 32
    for each in (one, other):
        each.close()


async def test_what_changes_nothing_is_not_written(directory: RuntimeDirectory) -> None:
    """A report of a worker's figures, which comes every second, costs the disk nothing; a change is written."""
    recorder, story = Recorder(directory, 1), serving(1)
    await recorder.save(story.fleet, asked=False)
    before = os.stat(directory.file("record.json")).st_ino
    story.tell(Reported(1, {"idle": 3}, 100))
    await recorder.save(story.fleet, asked=False)
    assert os.stat(directory.file("record.json")).st_ino == before
    story.reload()
    await recorder.save(story.fleet, asked=True)
    assert found(directory).fleet.last_rollout == 2
    recorder.close()


async def test_what_cannot_be_refused(directory: RuntimeDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """What happens all the same, and cannot be written down, takes the record with it: it would tell what is not."""
    recorder, story = Recorder(directory, 1), serving(1)
    await recorder.save(story.fleet, asked=False)
    os.mkdir(directory.file(".record.json.new"))
    story.die(1, age=90.0)
    assert "directory" in await recorder.save(story.fleet, asked=False)
    assert read(directory) is None
    await recorder.save(story.fleet, asked=False)
    assert [entry.levelname for entry in caplog.records] == ["ERROR"], "it is said once"
    os.rmdir(directory.file(".record.json.new"))
    caplog.set_level(logging.INFO)
    assert await recorder.save(story.fleet, asked=False) == ""
    assert found(directory).fleet == record.lasting(story.fleet)
    assert caplog.messages[-1] == "the record is written again"
    recorder.close()


async def test_what_is_refused(directory: RuntimeDirectory) -> None:
    """What is refused because it cannot be written down leaves the record as it was, which tells the truth."""
    recorder, story = Recorder(directory, 1), serving(1)
    await recorder.save(story.fleet, asked=False)
    before = story.fleet
    os.mkdir(directory.file(".record.json.new"))
    story.reload()
    assert await recorder.save(story.fleet, asked=True)
    assert await recorder.save(before, asked=False) == "", "there is nothing to be written"
    assert found(directory).fleet == record.lasting(before)
    os.rmdir(directory.file(".record.json.new"))
    recorder.close()


async def test_from_the_start(directory: RuntimeDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that takes nothing from the first moment on is no reason not to serve, and is told of."""
    blocked = in_the_way(directory)
    recorder = Recorder(directory, 1)
    assert await recorder.save(serving(1).fleet, asked=False) == "Is a directory"
    assert "the record cannot be written: Is a directory" in caplog.messages
    assert read(directory) is None
    blocked.rmdir()
    recorder.close()


class Stuck:
    """A runtime directory on a disk that does not answer until it is let go."""

    def __init__(self, directory: RuntimeDirectory) -> None:
        self.path = directory.path
        self.created = directory.created
        self.go = threading.Event()
        self.written: list[int] = []

    def replace(self, _: str, content: bytes) -> None:
        self.go.wait(20)
        self.written.append(record.decode(content).fleet.last_rollout)


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
    recorder = Recorder(disk, 1)  # type: ignore[arg-type]
    story.reload()
    began = loop.time()
    assert await recorder.save(story.fleet, asked=False) == SLOW
    assert 0.1 < loop.time() - began < 5
    began = loop.time()
    for _ in range(50):
        story.reload()
        assert await recorder.save(story.fleet, asked=False) == SLOW
    assert loop.time() - began < 5, "not 50 times as long"
    disk.go.set()
    await until(lambda: not recorder._writer.busy)
    assert await recorder.save(story.fleet, asked=False) == ""
    assert disk.written == [1, 51]
    recorder.close()


async def test_a_request_waits_for_the_disk(disk: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is done once the disk answers; what happens in the meantime is dealt with."""
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    recorder = Recorder(disk, 1)  # type: ignore[arg-type]
    engine = Engine(serving(1).fleet, recorder)
    running = asyncio.create_task(engine.run(EFFECTS))
    reloading = asyncio.create_task(engine.ask(ReloadAsked(NEW, "test")))
    await until(lambda: recorder._writer.busy)
    engine.submit(Exited(1, "killed by SIGKILL"))
    await until(lambda: 1 not in engine.fleet.workers)
    assert (reloading.done(), engine.fleet.last_rollout) == (False, 1)
    disk.go.set()
    assert (await reloading).last_rollout == 2
    assert disk.written[-1] == 2
    running.cancel()
    recorder.close()


async def test_a_request_does_not_wait_for_ever(disk: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that goes on not to answer refuses it, and its waiter hears why."""
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    monkeypatch.setattr(engine_module, "PATIENCE", 0.3)
    recorder, loop = Recorder(disk, 1), asyncio.get_running_loop()  # type: ignore[arg-type]
    engine = Engine(serving(1).fleet, recorder)
    running = asyncio.create_task(engine.run(EFFECTS))
    began = loop.time()
    with pytest.raises(Refused, match="not done: the disk does not answer; what serves goes on"):
        await engine.ask(ReloadAsked(NEW, "test"))
    assert 0.2 < loop.time() - began < 5
    assert engine.fleet.last_rollout == 1
    running.cancel()
    recorder.close()


def rewritten(directory: RuntimeDirectory, **fields: object) -> None:
    plain = json.loads(record.encode(Record(1, boot_id(), "ab" * record.KEY, 1, serving(1).fleet)))
    directory.replace("record.json", json.dumps({**plain, **fields}).encode())


def test_read(directory: RuntimeDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """A record of this boot is read; there may be none; of another boot nobody lives; one that is no use is told of."""
    assert read(directory) is None
    rewritten(directory)
    assert found(directory).fleet == record.lasting(serving(1).fleet)
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
    recorder = Recorder(directory, 1, replace(known, nonces={}))
    assert recorder.latest.key == known.key
    recorder.close()
