"""The client, and whatever it may be answered: every error is told apart, and none is a surprise."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import msgspec
import pytest

from stillup.client import Client, NotRunningError, PeerError, ProblemError, TimedOutError
from stillup.client.unix_http import UnixHttpConnection
from stillup.wire import trace_messages
from stillup.wire.api_shapes import Problem, Versions
from stillup.wire.api_version import API_HEADER, version
from stillup.wire.runtime_paths import CONTROL
from stillup.wire.trace_messages import TracedMessage, TraceGap
from tests.client.scripted_supervisor import answer, chunks, supervisor
from tests.host.signals_meanwhile import signals_meanwhile

VERSIONS = Versions("0.1.0", "1.0", [1, 2], "3.11.7", "0.54.0")
MESSAGE = TracedMessage(1.0, "control", "in", 1, 2, "", "request", 0, {"method": "GET"}, [])


def _problem(code: str, detail: str) -> bytes:
    body = msgspec.json.encode(Problem(f"urn:stillup:problem:{code}", code, 409, detail))
    return answer(body, "409 Conflict", "application/problem+json")


def test_an_answer_is_a_shape(tmp_path: Path) -> None:
    """What comes is the struct that the method promises."""
    with supervisor(tmp_path, answer(msgspec.json.encode(VERSIONS))) as heard:
        assert Client(str(tmp_path)).version() == VERSIONS
    assert heard.asked[0].startswith("GET /v1/version HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "garbled",
    [
        answer(b""),
        answer(b"{"),
        answer(b"\xff"),
        answer(b"[1, 2]"),
        answer(b'{"version": 1}'),
        answer(b"<html>", "500 Internal Server Error", "text/html"),
        answer(b'{"version":"1","api":"1","handoff":[],"python":"","uvicorn":""}', "500 Internal Server Error"),
        answer(b"{}", "409 Conflict", "application/problem+json"),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 " + b"x" * 70000 + b"\r\n\r\n",
    ],
)
def test_what_makes_no_sense_is_the_peers_error(tmp_path: Path, garbled: bytes) -> None:
    """No JSON, other JSON, an error that is no problem document, no HTTP at all: one line that names the place."""
    with supervisor(tmp_path, garbled), pytest.raises(PeerError, match="an answer that makes no sense here") as caught:
        Client(str(tmp_path)).version()
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_a_supervisor_that_ends_is_told(tmp_path: Path, cut: bytes) -> None:
    """One that hangs up before or in its answer has ended."""
    with supervisor(tmp_path, cut), pytest.raises(NotRunningError, match="ended before it answered"):
        Client(str(tmp_path)).version()


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_one_that_does_not_answer_is_not_waited_for(tmp_path: Path, begun: bytes) -> None:
    """After ``timeout`` seconds the caller is told where to look."""
    with (
        supervisor(tmp_path, begun, hold=True),
        pytest.raises(TimedOutError, match="did not answer in time; 'stillup doctor'"),
    ):
        Client(str(tmp_path), timeout=0.05).version()


def test_one_whose_queue_is_full_is_not_waited_for(tmp_path: Path) -> None:
    """A stopped supervisor accepts nobody: connect() itself waits no longer than the answer may take."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(tmp_path / CONTROL))
        listener.listen(0)
        first.connect(str(tmp_path / CONTROL))
        with pytest.raises(TimedOutError, match="did not answer in time"):
            Client(str(tmp_path), timeout=0.05).version()


def test_one_whose_queue_is_full_while_signals_come(tmp_path: Path) -> None:
    """An interrupted wait for a place is no connection to somebody unknown: it goes on."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(tmp_path / CONTROL))
        listener.listen(0)
        first.connect(str(tmp_path / CONTROL))
        with signals_meanwhile(lambda: None), pytest.raises(TimedOutError, match="did not answer in time"):
            Client(str(tmp_path), timeout=0.3).version()


def test_nobody_is_there(tmp_path: Path) -> None:
    """No directory, no file, a file whose maker has died: no supervisor runs there."""
    for place in (tmp_path / "gone", tmp_path):
        with pytest.raises(NotRunningError, match=f"^no supervisor runs in {place}$") as caught:
            Client(str(place)).status()
        assert caught.value.directory == str(place)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / CONTROL))
    with pytest.raises(NotRunningError, match=f"^no supervisor runs in {tmp_path}$"):
        Client(str(tmp_path)).status()
    with pytest.raises(NotRunningError, match="too long"):
        Client(f"/{'x' * 300}").status()


def test_who_may_not_connect_is_told_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that let nobody in are a denial as much as the supervisor's own, and name the role."""

    def refuse(_: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(UnixHttpConnection, "connect", refuse)
    with pytest.raises(ProblemError, match=r"is not open to uid .*; 'reload' needs 'operator'") as caught:
        Client(str(tmp_path)).reload()
    assert caught.value.code == "not-permitted"


def test_a_problem_is_an_error_with_its_code(tmp_path: Path) -> None:
    """The supervisor's words are the message."""
    with supervisor(tmp_path, _problem("superseded", "by another")), pytest.raises(ProblemError) as caught:
        Client(str(tmp_path)).reload(wait="drained")
    assert (caught.value.code, str(caught.value), caught.value.problem.status) == ("superseded", "by another", 409)


def test_our_version_is_said_but_where_an_upgrade_needs_it_unsaid(tmp_path: Path) -> None:
    """An older supervisor refuses us by it; it still says how it is, stops, and replaces its program."""
    problem = _problem("usage", "no")
    client = Client(str(tmp_path))
    with supervisor(tmp_path, *[problem] * 7) as heard:
        for ask in (client.reload, client.trace, client.whoami, client.status, client.reexec, client.stop):
            with pytest.raises(ProblemError):
                ask()
    said = [f"{API_HEADER}: {version()}\r\n" in asked for asked in heard.asked]
    assert said == [True, True, True, False, False, False, False]


STOPPING = answer(b'{"state":"stopping"}', "202 Accepted")
FIRST, SECOND = (
    answer(msgspec.json.encode(msgspec.structs.replace(VERSIONS, instance=one))) for one in ("7-100", "7-200")
)


def test_a_stop_is_over_when_nobody_listens(tmp_path: Path) -> None:
    """A supervisor that hangs up may have no patience, or no place for one more: it is asked until it is not there."""
    control = tmp_path / CONTROL
    look = "GET /v1/version HTTP/1.1"
    with supervisor(tmp_path, FIRST, STOPPING, b"", FIRST, b"", last=control.unlink) as heard:
        Client(str(tmp_path), timeout=20).stop()
    lines = [asked.partition("\r")[0] for asked in heard.asked]
    assert lines == [look, "POST /v1/stop HTTP/1.1", *[look] * 3]


def test_a_stop_is_over_when_another_answers(tmp_path: Path) -> None:
    """Where a service manager starts another supervisor at once, that one is not waited for; it may have the pid."""
    with supervisor(tmp_path, FIRST, STOPPING, FIRST, SECOND) as heard:
        Client(str(tmp_path), timeout=20).stop()
    assert len(heard.asked) == 4


@pytest.mark.parametrize("older", [answer(b"no JSON"), answer(msgspec.json.encode(VERSIONS)), _problem("usage", "no")])
def test_a_supervisor_that_does_not_say_which_it_is(tmp_path: Path, older: bytes) -> None:
    """An older one is stopped all the same."""
    control = tmp_path / CONTROL
    with supervisor(tmp_path, older, STOPPING, last=control.unlink) as heard:
        Client(str(tmp_path), timeout=20).stop()
    assert [asked.split()[1] for asked in heard.asked] == ["/v1/version", "/v1/stop"]


def test_what_is_asked(tmp_path: Path) -> None:
    """Each method asks for its row of the table, with its parameters."""
    problem = _problem("usage", "no")
    client = Client(str(tmp_path))
    asks = {
        "POST /v1/reload ": client.reload,
        "POST /v1/reload?wait=true ": lambda: client.reload(wait="cut-over"),
        "POST /v1/rollback?wait=drained ": lambda: client.rollback(wait="drained", timeout=9),
        "POST /v1/abort ": client.abort,
        "POST /v1/promote ": client.promote,
        "POST /v1/reload?canary=10&canary_percent=true&gated=false ": lambda: client.reload(
            canary=10, canary_percent=True, gated=False
        ),
        "POST /v1/scale?workers=3 ": lambda: client.scale(3),
        "POST /v1/scale?workers=3&wait=true ": lambda: client.scale(3, wait=True),
        "GET /v1/scalings/7 ": lambda: client.scaling(7),
        "GET /v1/rollouts/7 ": lambda: client.rollout(7),
        "GET /v1/generations ": client.generations,
        "GET /v1/workers ": client.workers,
        "GET /v1/listeners ": client.listeners,
    }
    with supervisor(tmp_path, *[problem] * len(asks)) as heard:
        for ask in asks.values():
            with pytest.raises(ProblemError):
                ask()
    for line, asked in zip(asks, heard.asked, strict=True):
        assert asked.startswith(line)


def test_a_stream_ends_where_the_supervisor_ends_it(tmp_path: Path) -> None:
    """Its lines are shapes, however they were cut into chunks; after the last there is no more."""
    first, second = trace_messages.encode(MESSAGE), trace_messages.encode(TraceGap(3))
    stream = chunks(first[:10], first[10:] + second[:1], second[1:])
    with supervisor(tmp_path, stream) as heard, Client(str(tmp_path)).trace() as lines:
        assert list(lines) == [MESSAGE, TraceGap(3)]
        assert list(lines) == []
    assert heard.asked[0].startswith("GET /v1/trace HTTP/1.1\r\n")


@pytest.mark.parametrize("cut", [b"", b"40\r\n{"])
def test_a_stream_that_is_cut_off(tmp_path: Path, cut: bytes) -> None:
    """What came before is told; then that the supervisor has gone."""
    with (
        supervisor(tmp_path, chunks(trace_messages.encode(MESSAGE), end=False, cut=cut)),
        Client(str(tmp_path)).trace() as lines,
    ):
        assert next(lines) == MESSAGE
        with pytest.raises(NotRunningError, match="hung up"):
            next(lines)


def test_a_stream_of_something_else(tmp_path: Path) -> None:
    """A line that makes no sense is the peer's error, and so is an answer that is no stream."""
    with supervisor(tmp_path, chunks(b"{}\n"), answer(b"no", "404 Not Found", "text/plain")):
        with Client(str(tmp_path)).trace() as lines, pytest.raises(PeerError, match="not a line of a trace"):
            next(lines)
        with pytest.raises(PeerError, match="makes no sense here"):
            Client(str(tmp_path)).trace()


def test_a_stream_is_waited_for_as_long_as_it_takes(tmp_path: Path) -> None:
    """``timeout`` is for the answer's head; a service where nothing happens says nothing for long."""
    first = trace_messages.encode(MESSAGE)
    with supervisor(tmp_path, chunks(first, end=False), hold=True), Client(str(tmp_path), timeout=20).trace() as lines:
        assert next(lines) == MESSAGE
        assert lines._connection.sock.gettimeout() is None


@pytest.mark.parametrize("late", [False, True])
def test_who_is_turned_away_is_told_why(tmp_path: Path, late: bool) -> None:
    """A supervisor that has no room says so, perhaps before it has heard the request; it is not said to have ended."""
    said = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    body = msgspec.json.encode(Problem("urn:stillup:problem:unavailable", "unavailable", 503, "busy: all are taken"))
    said += b"Content-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / CONTROL))
        listener.listen()

        def turn_away() -> None:
            connection, _ = listener.accept()
            with connection:
                if late:
                    connection.recv(65536)
                connection.sendall(said)

        thread = threading.Thread(target=turn_away)
        thread.start()
        with pytest.raises(ProblemError, match="busy: all are taken") as caught:
            Client(str(tmp_path)).status()
        thread.join(20)
    assert caught.value.code == "unavailable"
