"""Who listens in a directory that the operator names may answer anything: each command ends, in little memory."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from stillup.__main__ import main
from stillup.client import Client, NotRunningError, PeerError, TimedOutError, events_command
from stillup.client.line_stream import LONGEST_LINE
from stillup.client.unix_http import MOST_ANSWER, LimitedSocket
from stillup.wire.runtime_paths import CONTROL
from stillup.wire.trace_messages import TracedMessage
from tests.client.scripted_supervisor import answer, chunks, supervisor

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
MOST_SAID = 80 << 20
"""Bytes; who has been heard for so long is heard without end."""
TRICKLES = 30.0
"""Seconds for which one trickles; who has heard that to its end did not time out."""


@contextmanager
def endless(directory: Path, begin: bytes, again: bytes, every: float = 0.0) -> Iterator[None]:
    """Answer ``begin`` and then ``again`` and again, until whoever asked hangs up, or has heard it for too long."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / CONTROL))
        listener.listen()
        listener.settimeout(20)

        def speak() -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                connection.settimeout(20)
                connection.recv(65536)
                connection.sendall(begin)
                for _ in range(min(MOST_SAID // len(again), int(TRICKLES / every) if every else MOST_SAID)):
                    connection.sendall(again)
                    time.sleep(every)

        speaking = threading.Thread(target=speak)
        speaking.start()
        try:
            yield
        finally:
            speaking.join(20)
        assert not speaking.is_alive()


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        (HEAD + b"\r\n", b" " * 65536),
        (CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"A: " + b"b" * 60000 + b"\r\n"),
    ],
    ids=["interim answers", "a body", "chunks", "trailers"],
)
def test_one_that_never_ends_makes_no_sense(tmp_path: Path, begin: bytes, again: bytes) -> None:
    """Any part of an answer may go on for ever; nobody reads it for as long."""
    with endless(tmp_path, begin, again), pytest.raises(PeerError, match="makes no sense here"):
        Client(str(tmp_path)).version()


@pytest.mark.parametrize("begin", [b"", HEAD + b"Content-Length: 99999\r\n\r\n", CHUNKED + b"0\r\n"])
def test_one_that_trickles_is_not_waited_for(tmp_path: Path, begin: bytes) -> None:
    """The time is that for all of an answer, not for each byte of it."""
    began = time.monotonic()
    with endless(tmp_path, begin, b"H" if not begin else b" ", every=0.05):
        with pytest.raises(TimedOutError, match="did not answer in time"):
            Client(str(tmp_path), timeout=0.3).version()
        assert time.monotonic() - began < TRICKLES / 2


def test_a_history_that_trickles_is_not_waited_for(tmp_path: Path) -> None:
    """Events that are not followed have an end, and it has to come."""
    began = time.monotonic()
    with endless(tmp_path, CHUNKED, b"1\r\n \r\n", every=0.05):
        with Client(str(tmp_path), 20).events() as told:
            sock = told._connection.sock
            assert isinstance(sock, LimitedSocket)
            assert sock.seconds_left is not None
            assert sock.seconds_left <= 20, "what the head has taken is no more to be had"
            sock.seconds_left = 0.3  # with so little from the first a machine that stands still has none for the rest
            with pytest.raises(TimedOutError, match="did not say all in time"):
                next(told)
        assert time.monotonic() - began < TRICKLES / 2


def test_no_room_is_made_for_what_is_only_said(tmp_path: Path) -> None:
    """A length of a petabyte costs nothing: what comes is read, piece by piece."""
    huge = HEAD + b"Content-Length: 1000000000000000\r\n\r\n{}"
    tracemalloc.start()
    try:
        with supervisor(tmp_path, huge, huge):
            with pytest.raises(NotRunningError, match="ended before it answered"):
                Client(str(tmp_path)).version()
            with Client(str(tmp_path)).events() as told:
                assert list(told) == []
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "senseless",
    [answer(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), CHUNKED + b"-5\r\n{}\r\n0\r\n\r\n"],
    ids=["too deep", "less than nothing"],
)
def test_what_no_reader_expects_makes_no_sense(tmp_path: Path, senseless: bytes) -> None:
    """It is the peer's error, and no traceback of ours."""
    with supervisor(tmp_path, senseless), pytest.raises(PeerError, match="makes no sense here"):
        Client(str(tmp_path)).version()


def test_a_traced_message_that_is_too_deep_makes_no_sense(tmp_path: Path) -> None:
    """Nor in a stream."""
    deep = b'{"kind":"gap","missed":1,"more":' + b'{"a":' * 650_000 + b"1" + b"}" * 650_001 + b"\n"
    with supervisor(tmp_path, chunks(deep)), Client(str(tmp_path)).trace() as trace, pytest.raises(PeerError):
        next(trace)


def test_a_line_has_an_end(tmp_path: Path) -> None:
    """A stream goes on for as long as it likes, by lines."""
    with endless(tmp_path, HEAD + b"\r\n", b" " * 65536):
        with (
            pytest.raises(PeerError, match="a line that has no end"),
            Client(str(tmp_path)).events(follow=True) as told,
        ):
            next(told)
        assert len(told._rest) <= LONGEST_LINE + 65536


def test_who_says_nothing_is_followed_at_a_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers with no event and hangs up is asked again after a pause, each time."""
    pauses: list[float] = []
    numbers = itertools.count()

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if next(numbers) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", pause)
    with supervisor(tmp_path, *[chunks()] * 3), pytest.raises(KeyboardInterrupt):
        list(events_command.lines(Client(str(tmp_path)), None, follow=True, gone=lambda: None))
    assert pauses == [events_command.PAUSE] * 3


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_times_that_no_clock_has_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    """The first year and the last one have hours that are in no other, and seconds may be any number."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    event = b'{"kind":"worker.dances","seq":%d,"at":"%b","monotonic":1,"text":"x"}\n'
    told = [b"0001-01-01T00:00:00Z", b"9999-12-31T23:59:59Z", b"0001-01-01T00:00:00+23:59"]
    message = msgspec.json.encode(TracedMessage(0, "handoff", "in", 1, 2, "", "end", 0, {}, []))
    traced = [message.replace(b'"time":0', b'"time":' + at) + b"\n" for at in (b"1e300", b"-1e18", b"1e17")]
    assert traced[0] != message + b"\n"
    place = ["--runtime-dir", str(tmp_path)]
    try:
        with supervisor(tmp_path, chunks(*(event % (17, at) for at in told)), chunks(*traced)):
            shown = CliRunner().invoke(main, ["events", *place])
            assert (shown.exit_code, len(shown.output.splitlines())) == (0, 3)
            shown = CliRunner().invoke(main, ["trace", *place])
            assert shown.output.count("--:--:--.---") == 3
    finally:
        monkeypatch.undo()
        time.tzset()


def test_limits_are_beyond_what_a_supervisor_says() -> None:
    """A thousand events, each text of which is as long as it may be."""
    assert MOST_ANSWER > 1000 * 20_000
