"""What a command prints is written as far as it can be; that it cannot is known, and raised nowhere."""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
from pathlib import Path

import pytest

from stillup.host import standard_streams
from stillup.host.standard_streams import LenientFile, make_lenient, tell_unwritten, unwritten


def stream(fd: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(LenientFile(fd)), encoding="utf-8", write_through=True)


def test_a_reader_that_has_left() -> None:
    """All goes nowhere after the first error, which is kept; the descriptor is not closed with the stream."""
    read, write = os.pipe()
    os.close(read)
    out = stream(write)
    for _ in range(3):
        out.write("x" * 100_000)
        out.flush()
    error = unwritten(out)
    assert error is not None
    assert error.errno == errno.EPIPE
    out.close()
    os.close(write)


def test_a_pipe_that_somebody_has_made_non_blocking() -> None:
    """It is waited for, as if it blocked: nothing is lost."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    got: list[bytes] = []

    def take() -> None:
        with open(read, "rb") as file:
            got.append(file.read())

    out = stream(write)
    taker = threading.Thread(target=take)
    taker.start()
    out.write("x" * 1_000_000)
    out.flush()
    os.close(write)
    taker.join(20)
    assert (len(got[0]), unwritten(out)) == (1_000_000, None)


def test_both_streams_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They are replaced once, unless somebody has put something else there; what has no letter for it is escaped."""
    file = (tmp_path / "out").open("w", encoding="ascii")
    other = io.StringIO()
    for name, value in (("stdout", file), ("__stdout__", file), ("stderr", other)):
        monkeypatch.setattr(sys, name, value)
    make_lenient()
    out = sys.stdout
    make_lenient()
    assert out is sys.stdout is not file
    assert sys.stderr is other
    out.write("caf\N{LATIN SMALL LETTER E WITH ACUTE}\n")
    out.flush()
    assert (tmp_path / "out").read_text() == "caf\\xe9\n"
    tell_unwritten()
    assert not other.getvalue()
    file.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_device_that_is_full_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the other stream, in one line."""
    said = io.StringIO()
    with open("/dev/full", "w") as full:
        for name, value in (("stdout", full), ("__stdout__", full), ("stderr", said)):
            monkeypatch.setattr(sys, name, value)
        make_lenient()
        sys.stdout.write("x")
        tell_unwritten()
        assert said.getvalue() == "stillup: not all of the output was written: No space left on device\n"


def test_a_reader_that_leaves_later() -> None:
    """Whoever waits for that is told, though nothing was written meanwhile."""
    read, write = os.pipe()
    out = stream(write)
    noticed: list[bool] = []
    waiter = threading.Thread(target=lambda: noticed.append(standard_streams.wait_for_reader_to_leave(out)))
    waiter.start()
    os.close(read)
    waiter.join(20)
    assert noticed == [True]
    assert unwritten(out) is not None
    out.close()
    os.close(write)
    assert standard_streams.wait_for_reader_to_leave(io.StringIO()) is False
