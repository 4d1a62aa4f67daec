"""What a worker writes until it is ready, be it without end."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from stillup.daemon.state.console import MOST, MOST_OF_WORKERS, Console
from stillup.daemon.workers.boot_output import MOST_LINES, PAUSE, TAIL_BYTES, BootOutput
from stillup.wire import log_lines
from stillup.wire.log_lines import LogLine
from tests.asgi.event_loops import until


class Written(Console):
    """A console that keeps what it is given."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, fd: int, data: bytes, most: int = MOST) -> None:
        self.written += data


@pytest.mark.usefixtures("no_leak")
async def test_a_flood_is_read_at_a_pace() -> None:
    """A pipe that is full whenever it is looked at is read so many times a second, and everything else has its turn."""
    console = Written()
    output = BootOutput(console)
    write = os.dup(output.write_ends[0])
    os.set_blocking(write, False)
    output.started()
    loop = asyncio.get_running_loop()
    began, turns, sent = loop.time(), 0, 0
    while loop.time() - began < 10 * PAUSE or not turns:  # a machine that stands still has none in that time
        try:
            sent += os.write(write, b"x" * 65536)
        except BlockingIOError:
            turns += 1
        await asyncio.sleep(0)
    took = loop.time() - began
    assert len(console.written) <= 65536 * (took / PAUSE + 2)
    os.close(write)
    await until(lambda: len(console.written) == sent)
    assert len(output.tail()) >= 16384
    output.close()


class Counted(BootOutput):
    """One that knows how often it has looked into its pipe."""

    looks = 0

    def _ready(self) -> None:
        self.looks += 1
        super()._ready()


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("written", [b"x" * 65535, b"\n" * 65535, b"x"], ids=["much", "empty lines", "a byte"])
async def test_a_pipe_that_is_never_full_is_read_at_a_pace(written: bytes, *, captured: bool) -> None:
    """However little there is in it: who writes a byte at a time would else have the loop do nothing but read."""
    output = Counted(Logged(), "3.1", captured=captured)
    write = os.dup(output.write_ends[0])
    os.set_blocking(write, False)
    output.started()
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() - began < 20 * PAUSE or not output.looks:  # a machine that stands still has none in that time
        with suppress(BlockingIOError):
            os.write(write, written)
        await asyncio.sleep(0)
    assert output.looks <= (loop.time() - began) / PAUSE + 2
    os.close(write)
    output.close()


@pytest.mark.usefixtures("no_leak")
async def test_empty_lines_wait_for_nothing() -> None:
    """They are no lines of the log, and are not kept as such."""
    output = BootOutput(Logged(), "3.1", captured=True)
    os.set_blocking(output.write_ends[0], False)
    os.write(output.write_ends[0], b"\n" * 65535)
    assert output._read()
    assert not output._lines
    output.close()


@pytest.mark.usefixtures("no_leak")
async def test_what_is_written_by_and_by_is_passed_on_at_once() -> None:
    """Output as it is most of the time waits for nothing; its last lines are kept."""
    console = Written()
    output = BootOutput(console)
    write = os.dup(output.write_ends[1])
    output.started()
    for number in range(100):
        os.write(write, f"line {number}\n".encode())
        await until(lambda number=number: console.written.endswith(f"line {number}\n".encode()))  # type: ignore[misc]
    os.close(write)
    assert output.tail().splitlines() == [f"line {number}" for number in range(40, 100)]
    output.close()


def test_a_flood_leaves_room_for_our_own_lines() -> None:
    """What workers write fills half of what may wait: what the supervisor has to say of it is not dropped with it."""
    console = Console()
    read, write = os.pipe()
    for _ in range(2 * MOST // 65536):
        console.write(write, b"x" * 65536, MOST_OF_WORKERS)
    console.write(write, b"ours")
    with ThreadPoolExecutor(1) as pool, open(read, "rb") as file:
        said = pool.submit(file.read)
        console.flush(20)
        os.close(write)
        content = said.result(20)
    assert content.endswith(b"xours")
    assert MOST_OF_WORKERS - 65536 <= content.count(b"x") <= MOST_OF_WORKERS + 65536
    console.close()


async def test_the_last_of_it_is_kept() -> None:
    """No more than that of what was written at once, and has no line's end."""
    console = Written()
    output = BootOutput(console)
    os.write(output.write_ends[0], b"\x01" * 60_000)
    output.started()
    assert len(output.tail()) == TAIL_BYTES
    assert len(console.written) == 60_000
    output.close()


class Logged(Written):
    """A console that keeps what is logged, too."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str, str]] = []

    def log(self, line: LogLine, worker: str = "", at: float | None = None, most: int = MOST) -> None:
        self.lines.append((worker, line.level, line.message))


@pytest.mark.usefixtures("no_leak")
async def test_lines_are_logged_in_their_order() -> None:
    """Of stdout, of stderr and of the worker's own log, each as it came, and with who says it."""
    console = Logged()
    output = BootOutput(console, "3.1", captured=True)
    stdout, stderr = output.write_ends
    own = log_lines.packed(LogLine("no\nTraceback", "ERROR"))
    for fd, text in ((stdout, "one\nt"), (stderr, "wo\n"), (stdout, f"{own}\n"), (stderr, "\n"), (stdout, "last")):
        os.write(fd, text.encode())
    output.started()
    await until(lambda: len(console.lines) == 4)
    assert output.tail() == "one\ntwo\nno\nTraceback\nlast"
    assert console.lines == [
        ("3.1", "INFO", "one"),
        ("3.1", "INFO", "two"),
        ("3.1", "ERROR", "no\nTraceback"),
        ("3.1", "INFO", "last"),
    ]
    assert console.written == b""
    output.close()


@pytest.mark.usefixtures("no_leak")
async def test_what_came_is_logged_before_what_comes_of_it() -> None:
    """What a worker has written is read when that is asked for, as before it is told to accept."""
    console = Logged()
    output = BootOutput(console, "3.1", captured=True)
    os.write(output.write_ends[0], b"ready\n")
    output.read_out()
    assert console.lines == [("3.1", "INFO", "ready")]
    output.close()


@pytest.mark.usefixtures("no_leak")
async def test_a_flood_of_short_lines_is_logged_at_a_pace() -> None:
    """No turn of the loop gives more lines their form than that; a line without an end is cut."""
    console = Logged()
    output = BootOutput(console, "3.1", captured=True)
    os.write(output.write_ends[0], b"a\n" * 20_000)
    os.write(output.write_ends[1], b"x" * 20_000)
    output.started()
    seen = 0
    while len(console.lines) < 20_000:
        await asyncio.sleep(0)
        assert len(console.lines) - seen <= MOST_LINES
        seen = len(console.lines)
    assert len(output.tail()) <= TAIL_BYTES
    assert max(len(message) for _, _, message in console.lines) == log_lines.LONGEST
    output.close()
