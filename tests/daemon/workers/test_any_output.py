"""The pipe of a worker's boot, to which it writes anything."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stillup.daemon.state.console import MOST, Console
from stillup.daemon.workers.boot_output import TAIL_BYTES, TAIL_LINES, BootOutput
from stillup.wire import log_lines
from stillup.wire.log_lines import LogLine
from tests.asgi.event_loops import run, until
from tests.host.conftest import open_descriptors

LINES = st.builds(
    LogLine,
    st.text(max_size=100),
    st.sampled_from(sorted(log_lines.LEVELS)),
    st.text(max_size=100),
    st.dictionaries(st.text(max_size=10), st.text(max_size=10) | st.integers(-(2**70), 2**70), max_size=3),
)
WRITTEN = (
    st.binary(max_size=100)
    | st.sampled_from([b"\x1e", b"\n", b"\r", b"\xff\n", b"\x1e{", b"\x1b]52;c;x\x07", b"a" * 40_000])
    | LINES.map(log_lines.packed).map(lambda line: line.encode(errors="surrogateescape"))
)


class Heard(Console):
    """A console that keeps what it is given."""

    def __init__(self) -> None:
        self.bytes = b""
        self.lines: list[tuple[str, LogLine]] = []

    def write(self, fd: int, data: bytes, most: int = MOST) -> None:
        self.bytes += data

    def log(self, line: LogLine, worker: str = "", at: float | None = None, most: int = MOST) -> None:
        self.lines.append((worker, line))


@pytest.mark.usefixtures("first_loop")
@given(written=st.lists(WRITTEN, max_size=8), captured=st.booleans(), reads=st.sets(st.integers(0, 7)))
@example(written=[b"\x1e" + b"[" * 40_000, b"\n"], captured=True, reads=set())
def test_whatever_a_worker_writes(written: list[bytes], captured: bool, reads: set[int]) -> None:
    """Any bytes in any pieces, read whenever: each line of the log is the worker's, and what is kept has its bound."""

    async def story() -> None:
        before = open_descriptors()
        console = Heard()
        output = BootOutput(console, "3.1", captured=captured)
        write = os.dup(output.write_ends[0])
        output.started()
        os.set_blocking(write, False)
        sent = b""
        for number, data in enumerate(written):
            try:
                sent += data[: os.write(write, data)]
            except BlockingIOError:
                output.read_out()
            if number in reads:
                output.read_out()
        os.close(write)
        tail = output.tail()
        assert len(tail) <= TAIL_BYTES
        assert tail.count("\n") < TAIL_LINES
        assert {worker for worker, _ in console.lines} <= {"3.1"}
        for _, line in console.lines:
            assert line.level in log_lines.LEVELS
            shown = log_lines.text(line, "AT", "3.1").encode(errors="backslashreplace")
            assert shown.startswith(b"AT ")
            assert b"\nAT " not in shown
            assert b"\x1b" not in shown
        assert captured or console.bytes == sent
        output.close()
        await until(lambda: open_descriptors() == before)

    run(story())
