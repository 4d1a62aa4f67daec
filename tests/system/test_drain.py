"""What becomes of each class of connection when its worker retires."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed

from tests.system.harness import APP, ROOT, Service, eventually, open_socket

EXAMPLE = ("--app-dir", str(ROOT), "--drain-timeout", "8")


def _service(folder: Path, *options: str) -> Service:
    return Service(folder, "app_example.main:app", *EXAMPLE, *options)


def _get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def _read(sock: socket.socket) -> bytes:
    """Everything until the end; closes."""
    with sock:
        answer = b""
        while data := sock.recv(65536):
            answer += data
        return answer


def _read_head(sock: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(65536)
        assert data, head
        head += data
    return head


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = _service(tmp_path)
    service.tracebacks_expected = True  # a request that is cancelled at its deadline is logged by uvicorn
    with service:
        yield service


def _gone(service: Service, generation: int = 1) -> bool:
    return generation not in service.generations()


def test_an_unread_connection_is_answered(service: Service) -> None:
    """A connection that has said nothing yet is answered by the old generation, which says that it closes."""
    client = open_socket(service.address())
    eventually(lambda: any(w.connections for w in service.workers()), "it is accepted")
    assert service.reload().returncode == 0
    client.sendall(_get("/"))
    answer = _read(client).lower()
    assert b"worker 1.1" in answer
    assert b"connection: close" in answer


def test_an_idle_connection_is_answered_once_more(service: Service) -> None:
    """A kept connection is not cut: its next request is answered, with 'Connection: close'."""
    client = open_socket(service.address())
    client.sendall(_get("/"))
    assert b"connection: close" not in _read_head(client).lower()
    assert service.reload().returncode == 0
    client.sendall(_get("/"))
    answer = _read(client).lower()
    assert b"x-gen: 1" in answer
    assert b"connection: close" in answer
    eventually(lambda: _gone(service), "the old generation leaves")


def test_a_half_read_head_completes(service: Service) -> None:
    """A request whose head was half sent at the reload is answered by the generation that has the first half."""
    client = open_socket(service.address())
    request = _get("/")
    client.sendall(request[:9])
    eventually(lambda: any("half-read" in w.classes for w in service.workers()), "half of it is read")
    assert service.reload().returncode == 0
    client.sendall(request[9:])
    assert b"worker 1.1" in _read(client)


def test_a_request_in_progress_finishes(tmp_path: Path) -> None:
    """A request under way at the cut-over is answered in full, and its connection told to close."""
    service = Service(tmp_path)
    wait = '    if scope["path"] == "/wait":\n        await scope["state"]["stillup"].draining\n    body ='
    service.write(APP.replace("    body =", wait))
    with service:
        client = open_socket(service.address())
        client.sendall(_get("/wait"))
        eventually(lambda: any("in-progress" in w.classes for w in service.workers()), "it is under way")
        assert service.reload().returncode == 0
        answer = _read(client).lower()
        assert b"x-gen: 1" in answer
        assert b"connection: close" in answer


def test_an_upload_finishes(service: Service) -> None:
    """An upload that is under way arrives whole."""
    client = open_socket(service.address())
    client.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
    eventually(lambda: any("in-progress" in w.classes for w in service.workers()), "it is under way")
    assert service.reload().returncode == 0
    client.sendall(b"x" * 100_000)
    assert json.loads(_read(client).rpartition(b"\r\n\r\n")[2]) == {"bytes": 200_000}


def test_an_endless_stream_ends_well(service: Service) -> None:
    """An app that watches `state.stillup.draining` ends its stream of events in order."""
    client = open_socket(service.address())
    client.sendall(_get("/stream?ms=100", "Accept: text/event-stream"))
    eventually(lambda: any("stream" in w.classes for w in service.workers()), "it streams")
    assert service.reload().returncode == 0
    answer = _read(client)
    assert b"event: bye" in answer
    assert answer.endswith(b"0\r\n\r\n")


def test_a_websocket_is_told_1012(service: Service) -> None:
    """A WebSocket gets the close code that means 'service restart', and the old generation leaves."""
    with websockets.sync.client.connect(f"ws://{service.address()}/ws") as client:
        client.send("a")
        assert client.recv() == "1: a"
        assert service.reload().returncode == 0
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    eventually(lambda: _gone(service), "the old generation leaves")


def test_what_does_not_end_is_ended_at_the_deadline(tmp_path: Path) -> None:
    """A request that outlasts the drain is cut at its deadline, by the worker itself, which says what it cut."""
    service = _service(tmp_path, "--drain-timeout", "1.5")
    service.tracebacks_expected = True
    with service:
        client = open_socket(service.address())
        client.sendall(_get("/slow?ms=600000"))
        eventually(lambda: any("in-progress" in w.classes for w in service.workers()), "it is under way")
        began = time.monotonic()
        assert service.reload().returncode == 0
        eventually(lambda: _gone(service), "the old generation leaves", deadline=6)
        assert time.monotonic() - began < 6
        assert b"200 OK" not in _read(client)
    assert "drain ended 1 in-progress after 1.5 s" in service.log()


BLOCK = """    if scope["path"] == "/block":
        open("blocked", "w").close()
        time.sleep(600)
"""


def test_a_worker_that_cannot_be_reached_is_killed(tmp_path: Path) -> None:
    """An old worker whose event loop is blocked past its drain is sent TERM, then KILL, and the rollout ends."""
    service = Service(tmp_path, "main:app", "--drain-timeout", "0.5")
    service.write("import time\n" + APP.replace('    body = f"', BLOCK + '    body = f"'))
    with service:
        client = open_socket(service.address())
        client.sendall(_get("/block"))
        eventually((tmp_path / "blocked").exists, "its loop is blocked")
        service.write()
        assert service.reload().returncode == 0
        eventually(lambda: _gone(service), "the old generation is gone", deadline=20)
        client.close()
    assert "did not end its drain in time" in service.log()


def test_a_stop_answers_what_is_under_way_and_closes_the_listener_first(service: Service) -> None:
    """A final stop refuses new connections at once, answers the unread and the slow, and closes the idle."""
    address = service.address()
    idle, unread, slow = (open_socket(address) for _ in range(3))
    idle.sendall(_get("/"))
    _read_head(idle)
    slow.sendall(_get("/slow?ms=1200"))
    eventually(
        lambda: {"idle", "unread", "in-progress"} <= {k for w in service.workers() for k in w.classes}, "all three"
    )
    service.process.terminate()

    def refused() -> bool:
        try:
            open_socket(address).close()
        except ConnectionRefusedError:
            return True
        return False

    eventually(refused, "new connections are refused")
    unread.sendall(_get("/"))
    assert b"worker 1.1" in _read(unread)
    assert b"slow hello" in _read(slow)
    _read(idle)
    assert service.process.wait(10) == 0


def test_an_answer_given_early_arrives_although_the_body_still_comes(tmp_path: Path) -> None:
    """A close after an early answer does not destroy it: the rest of the body is read and dropped first."""
    service = Service(tmp_path)
    service.write()
    with service:
        client = open_socket(service.address())
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3000000\r\n\r\n")
        eventually(lambda: service.status() and _readable(client), "the answer")
        for _ in range(30):
            client.sendall(b"x" * 100_000)
        client.shutdown(socket.SHUT_WR)
        assert _read(client).startswith(b"HTTP/1.1 200")


def _readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])
