"""The history: what a reader has seen is in the file, no reader costs anything, and the disk may do what it likes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from stillup.core.model import Fleet
from stillup.daemon.state import writer_thread as module
from stillup.daemon.state.feed import Feed
from stillup.daemon.state.history import BATCH, History
from stillup.daemon.state.readiness import Readiness
from stillup.host.runtime_directory import RuntimeDirectory, claim
from stillup.host.service_manager import Notifier
from stillup.wire import event_encoding as entry
from stillup.wire.event_encoding import Entry
from tests.asgi.event_loops import until

pytestmark = pytest.mark.usefixtures("no_leak")

FILE = "events.ndjson"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RuntimeDirectory]:
    """A runtime directory of ours."""
    held = claim(str(tmp_path / "rt"))
    yield held
    held.remove(FILE)
    held.close()


@asynccontextmanager
async def running(directory: RuntimeDirectory, most: int = 1000) -> AsyncIterator[History]:
    """A history of a supervisor, until that dies."""
    history = History(directory, most)
    work = asyncio.create_task(history.run())
    try:
        yield history
    finally:
        work.cancel()
        await until(lambda: not history._writer.busy)  # a thread that dies with its process cannot be had here
        history.close()


def announce(history: History, times: int = 1) -> None:
    for _ in range(times):
        history.append("rollout.waiting", {"rollout": history.next})


async def published(history: History) -> None:
    await until(lambda: history.newest == history.next - 1)


def content(directory: RuntimeDirectory) -> bytes:
    return directory.read(FILE) or b""


def spoil(directory: RuntimeDirectory, ruin: Callable[[bytes], bytes]) -> None:
    Path(directory.file(FILE)).write_bytes(ruin(content(directory)))


def on_disk(directory: RuntimeDirectory) -> list[int]:
    return [json.loads(line)["seq"] for line in content(directory).splitlines()]


async def got(history: History, since: int | None = None) -> list[tuple[int, str]]:
    """All that a reader is told who does not follow."""
    return [(one.seq, one.kind) async for batch in history.read(since, follow=False) for one in batch]


def events(first: int, last: int) -> list[tuple[int, str]]:
    return [(number, "rollout.waiting") for number in range(first, last + 1)]


class Reader:
    """Follows a history; what it is told is in ``told``, one batch a step."""

    def __init__(self, history: History, since: int | None = None) -> None:
        self._batches = history.read(since, follow=True)
        self.told: list[Entry] = []

    async def step(self) -> Sequence[Entry]:
        batch: Sequence[Entry] = await anext(self._batches)
        self.told += batch
        return batch

    async def to_the_end(self) -> list[int]:
        async for batch in self._batches:
            self.told += batch
        return [one.seq for one in self.told]


async def test_one_after_the_other(directory: RuntimeDirectory) -> None:
    """Events have the numbers 1, 2, 3 ..., and a reader gets those after the one that it has."""
    async with running(directory) as history:
        assert await got(history) == await got(history, 0) == []
        announce(history, 250)
        assert history.newest == 0, "announcing waits for nothing"
        await published(history)
        assert await got(history) == await got(history, 0) == events(1, 250)
        assert await got(history, 248) == events(249, 250)
        assert await got(history, 250) == []
        assert on_disk(directory) == list(range(1, 251))


async def test_a_follower(directory: RuntimeDirectory) -> None:
    """Who follows is told of each event once, those that were there first, until the history ends for readers."""
    async with running(directory) as history:
        announce(history, 3)
        await published(history)
        reader = Reader(history, 1)
        assert [one.seq for one in await reader.step()] == [2, 3]
        waiting = asyncio.create_task(reader.to_the_end())
        for _ in range(4):
            announce(history)
            await published(history)
        announce(history)
        await history.settle()
        history.end()
        assert await waiting == [2, 3, 4, 5, 6, 7, 8]
        history.go_on()
        announce(history)
        assert [one.seq for one in await Reader(history, 8).step()] == [9]


async def test_the_next_supervisor_goes_on(directory: RuntimeDirectory) -> None:
    """The history outlives its supervisor: the next one knows it, and goes on with its numbers."""
    for life in range(5):
        async with running(directory) as history:
            assert await got(history) == events(1, 3 * life)
            announce(history, 3)
            await published(history)
    assert on_disk(directory) == list(range(1, 16))


async def test_no_number_is_used_twice(directory: RuntimeDirectory) -> None:
    """Whatever a reader has seen when its supervisor dies, at whatever moment, the next supervisor knows of."""
    seen: list[int] = []
    for life in range(20):
        async with running(directory, most=8) as history:
            reader = Reader(history, len(seen))

            async def read(reader: Reader = reader) -> None:
                while True:
                    await reader.step()

            reading = asyncio.create_task(read())
            announce(history, 3)
            for _ in range(life):
                await asyncio.sleep(0)  # the moment of its death
            reading.cancel()
            assert [one.kind for one in reader.told] == ["rollout.waiting"] * len(reader.told)
            seen += [one.seq for one in reader.told]
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > 10


@pytest.mark.parametrize(
    ("ruin", "left"),
    [
        (lambda written: written[:-1], 4),
        (lambda written: written + b'{"seq":6', 5),
        (lambda written: written[:30], 0),
        (lambda written: b"\0" * 4096, 0),
        (lambda written: b"", 0),
    ],
    ids=["torn", "torn-behind", "torn-first", "zeros", "empty"],
)
async def test_a_damaged_file(directory: RuntimeDirectory, ruin: Callable[[bytes], bytes], left: int) -> None:
    """What is whole at the file's beginning is kept, and the file is whole again with the next event."""
    async with running(directory) as history:
        announce(history, 5)
        await published(history)
    spoil(directory, ruin)
    async with running(directory) as history:
        assert await got(history) == events(1, left)
        announce(history)
        await published(history)
        assert on_disk(directory) == list(range(1, left + 2))


async def test_it_is_bounded(directory: RuntimeDirectory) -> None:
    """The last events are kept, in the file at most twice as many, and what is missing is told."""
    longest = 0
    async with running(directory, most=10) as history:
        for _ in range(50):
            announce(history)
            await published(history)
            longest = max(longest, len(on_disk(directory)))
        assert longest == 20
        assert await got(history) == events(41, 50)
        assert await got(history, 40) == events(41, 50)
        assert await got(history, 0) == await got(history, 39) == [(40, "feed.gap"), *events(41, 50)]
    async with running(directory, most=10) as history:
        assert await got(history) == events(41, 50)


async def test_another_history(directory: RuntimeDirectory) -> None:
    """A number that no event has had yet is of another history: the reader is told, and gets all of this one."""
    async with running(directory) as history:
        assert await got(history, 7) == [(0, "feed.gap")]
        reader = Reader(history, 7)
        assert [one.kind for one in await reader.step()] == ["feed.gap"]
        announce(history, 2)
        assert [one.seq for one in await reader.step()] == [1, 2]
        assert await got(history, 7) == [(0, "feed.gap"), *events(1, 2)]


async def test_a_slow_reader(directory: RuntimeDirectory) -> None:
    """A reader that does not come keeps nothing, and is told what it has missed meanwhile, as often as that happens."""
    async with running(directory, most=10) as history:
        announce(history)
        slow, never = Reader(history), Reader(history, 0)
        await slow.step()
        for end in (51, 101):
            announce(history, 50)
            await published(history)
            gap, *events = await slow.step()
            told = json.loads(gap.json)
            assert (gap.kind, gap.seq, told["since"], told["next"]) == ("feed.gap", end - 10, end - 50, end - 9)
            assert [one.seq for one in events] == list(range(end - 9, end + 1)), "what is next comes with it"
        assert (await never.step())[0].kind == "feed.gap"
        assert len(history._kept) == 10


async def test_a_long_history_is_read_in_turns(directory: RuntimeDirectory) -> None:
    """Somebody who reads all of a long history lets everybody else have their turn between."""
    async with running(directory) as history:
        announce(history, 5 * BATCH)
        await published(history)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)  # a turn

        counting = asyncio.create_task(count())
        await got(history)
        counting.cancel()
        assert turns >= 5


# The disk


class Disk:
    """A runtime directory whose disk refuses, or does not answer."""

    def __init__(self, directory: RuntimeDirectory) -> None:
        self._directory = directory
        self.path = directory.path
        self.answers = threading.Event()
        self.answers.set()
        self.full = False

    def file(self, name: str) -> str:
        return self._directory.file(name)

    def read(self, name: str) -> bytes | None:
        return self._directory.read(name)

    def append(self, name: str) -> int:
        return self._directory.append(name) if not self.full else os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)

    def replace(self, name: str, content: bytes) -> None:
        self.answers.wait(20)
        if self.full:
            raise OSError(28, "No space left on device")
        self._directory.replace(name, content)


@pytest.fixture
def disk(directory: RuntimeDirectory) -> Iterator[Disk]:
    """A disk that answers at the latest when the test is over."""
    disk = Disk(directory)
    yield disk
    disk.answers.set()


async def test_no_event_is_seen_before_it_is_written(
    directory: RuntimeDirectory, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk has not answered nobody is told; announcing does not wait for it."""
    monkeypatch.setattr(module, "PATIENCE", 20.0)
    disk.answers.clear()
    async with running(disk) as history:  # type: ignore[arg-type]
        reader = Reader(history)
        step = asyncio.create_task(reader.step())
        announce(history, 2)
        await until(lambda: history._writer.busy)
        for _ in range(20):
            await asyncio.sleep(0)
        assert (history.newest, reader.told) == (0, [])
        disk.answers.set()
        assert [one.seq for one in await step] == [1, 2]
        assert on_disk(directory) == [1, 2]


async def test_a_disk_that_is_full(directory: RuntimeDirectory, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    """Events go on without the file, which is said once; when there is room again the file has what it lacked."""
    caplog.set_level(logging.INFO)
    async with running(disk) as history:  # type: ignore[arg-type]
        disk.full = True
        for _ in range(3):
            announce(history, 2)
            await published(history)
        assert await got(history) == events(1, 6)
        assert directory.read(FILE) is None
        disk.full = False
        announce(history)
        await published(history)
        assert on_disk(directory) == list(range(1, 8))
    path = directory.file(FILE)
    assert caplog.messages == [
        f"{path} cannot be written: No space left on device; events go on without it",
        f"{path} is written again",
    ]


async def test_a_line_that_is_written_in_part(directory: RuntimeDirectory) -> None:
    """Behind a write that failed half-way nothing is appended: the file is written anew."""
    async with running(directory) as history:
        announce(history, 2)
        await published(history)
        fd = history._file._fd
        assert fd is not None
        os.dup2(full := os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC), fd, inheritable=False)
        os.close(full)
        spoil(directory, lambda written: written + b'{"torn')
        announce(history)
        await published(history)
        announce(history)
        await published(history)
        assert on_disk(directory) == [1, 2, 3, 4]


async def test_a_disk_that_hangs(
    directory: RuntimeDirectory, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is waited for once; then events are published without it, and what is true when it answers is written."""
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    disk.answers.clear()
    async with running(disk) as history:  # type: ignore[arg-type]
        for _ in range(50):
            announce(history)
            await history.settle()
        assert await got(history) == events(1, 50)
        assert len(caplog.messages) == 1
        monkeypatch.setattr(module, "PATIENCE", 20.0)
        disk.answers.set()
        await until(lambda: not history._writer.busy)
        announce(history)
        await published(history)
        assert on_disk(directory) == list(range(1, 52))


async def test_a_file_that_cannot_be_read(directory: RuntimeDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """Something else in the file's place is no reason not to start, nor to lose an event."""
    os.mkdir(directory.file(FILE))
    async with running(directory) as history:
        announce(history)
        await published(history)
        assert await got(history) == events(1, 1)
    assert "cannot be read: Is a directory" in caplog.messages[0]
    os.rmdir(directory.file(FILE))


async def test_the_feed(directory: RuntimeDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """An announcement is in the log at once, with what an app said, and in the history without that.

    One without a shape uses no number up.
    """
    caplog.set_level(logging.DEBUG)
    async with running(directory) as history:
        feed = Feed(Readiness(Notifier(), Fleet), history)
        with pytest.raises(KeyError):
            feed.announce("moon.full", {})
        feed.announce("rollout.waiting", {"rollout": 3})
        died = {"worker": "1.1", "pid": 5, "why": "1.1 (pid 5) failed (import)"}
        feed.announce("worker.died", {**died, "message": "no secret://db", "output": "secret"})
        assert [(entry.levelname, entry.message) for entry in caplog.records] == [
            ("INFO", "reload 3 waits until an older generation has left"),
            ("ERROR", "worker 1.1 (pid 5) failed (import); its slot is filled again: no secret://db"),
        ]
        await published(history)
        assert await got(history) == [(1, "rollout.waiting"), (2, "worker.died")]
    assert b"secret" not in content(directory)
    assert len(entry.read(content(directory))) == 2
