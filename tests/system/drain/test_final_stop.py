"""What becomes of each class of connection in a final stop."""

from __future__ import annotations

import ssl
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed

from tests.system.clients import Answer, Ended, Peer, request
from tests.system.gated_service import (
    Start,
    open_gate,
    reached,
    reload,
    seen,
    tls_peer,
)
from tests.system.harness import DEADLINE, Service, eventually, open_socket
from tests.system.mutations import HEAD_OF_1_5_S, IDLE_FOR_4_S, mutated

PARSERS = pytest.mark.parametrize("http", ["httptools", "h11"])


def _stop(service: Service) -> None:
    """Ask for a stop and wait until new connections are refused: that is its first step."""
    address = service.address()
    service.process.terminate()

    def refused() -> bool:
        try:
            open_socket(address).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            pass  # it was in the backlog at the instant at which the listener was closed
        return False

    eventually(refused, "new connections are refused")


def _stopped(service: Service) -> None:
    """Wait for the end. Sooner than any deadline of its classes: so it had nothing to wait for."""
    assert service.process.wait(9) == 0


@PARSERS
def test_a_stop_answers_who_comes_soon_and_closes_the_idle(start: Start, tmp_path: Path, http: str) -> None:
    """Whoever has a connection and no request under way is answered if one comes soon, and told to close.

    That is: a connection whose first request had not come when the stop did, a request whose head was half here, and
    idle ones that ask before their turn. These are closed soon, and not at once (a little later here than usual).
    """
    service = start("--http", http, environment=mutated(tmp_path, *IDLE_FOR_4_S))
    with ExitStack() as stack:
        asking, silent = ([stack.enter_context(Peer(service.address())) for _ in range(10)] for _ in range(2))
        for peer in (*asking, *silent):
            peer.get()
        unread, half = (stack.enter_context(Peer(service.address())) for _ in range(2))
        half.send(request()[:9])
        classes = {"idle": 20, "unread": 1, "half-read": 1}
        eventually(lambda: [w.classes for w in service.workers()] == [classes], "all are there")
        began = time.monotonic()
        _stop(service)
        assert unread.get().closes
        answers: list[Answer] = []
        for peer in asking:
            with suppress(Ended, BrokenPipeError, ConnectionResetError):  # those whose turn was first
                answers.append(peer.get())
        assert answers
        assert all(answer.closes for answer in answers)
        for peer in (*silent, *asking):
            assert peer.ends()
        assert 4 < time.monotonic() - began < 20  # a machine may stand still for a while; they are kept for 60 s else
        half.send(request()[9:])
        assert half.answer().closes
        for peer in (unread, half):
            assert peer.ends()
    _stopped(service)


@PARSERS
def test_a_stop_finishes_what_is_under_way(start: Start, http: str) -> None:
    """All that has a request is answered to the last byte, and told to close, unless its answer had begun.

    A request, an upload, pipelined ones, an answer in chunks, a body whose answer is out (it is not waited for, and the
    answer is not lost by the close), an endless stream and a WebSocket, which are told; and the work behind an answer
    goes on to its end although its connection is closed.
    """
    service = start("--http", http, "--ws", "auto")
    with (
        ExitStack() as stack,
        websockets.sync.client.connect(f"ws://{service.address()}/") as websocket,
    ):
        waits, upload, pipelined, chunked, early, background, stream = (
            stack.enter_context(Peer(service.address())) for _ in range(7)
        )
        waits.send(request("/wait?gate=g"))
        upload.send(request("/upload?gate=u", "Content-Length: 200000", method="POST") + b"x" * 100_000)
        pipelined.send(request("/wait?gate=a") + request("/wait?gate=b"))
        chunked.send(request("/chunked?gate=c"))
        early.send(request("/early", "Content-Length: 200000", method="POST") + b"x" * 100_000)
        background.get("/background?gate=w")
        stream.send(request("/events"))
        for gate in "guacw":
            reached(service, gate)
        seen(service, "answered", "stream", "websocket")
        _stop(service)

        assert "event: bye" in stream.answer().body
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(timeout=DEADLINE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert early.answer().generation == 1
        for peer in (stream, early, background):
            assert peer.ends()
        early.sock.close()
        upload.send(b"x" * 100_000)
        answer = upload.answer()
        assert (answer.body, answer.closes) == ("200000", True)
        for gate in "gabcw":
            open_gate(service, gate)
        assert waits.answer().closes
        assert pipelined.answer().closes  # which says that what is behind it will not be answered (RFC 9112, 9.6)
        assert chunked.answer().body.endswith("and that is all")
        for peer in (waits, upload, pipelined, chunked):
            assert peer.ends()
    _stopped(service)
    assert (service.folder / "w.done").exists()


def test_a_stop_of_every_process_at_once_loses_nothing(start: Start) -> None:
    """SIGTERM to the workers too, and before the supervisor's, as from a service manager: all is as in any stop."""
    service = start(workers=2)
    with ExitStack() as stack:
        waits = [stack.enter_context(Peer(service.address())) for _ in range(10)]
        unread = [stack.enter_context(Peer(service.address())) for _ in range(10)]
        for peer in waits:
            peer.send(request("/wait?gate=g"))

        def all_there() -> bool:
            classes = [w.classes for w in service.workers()]
            return [sum(c.get(kind, 0) for c in classes) for kind in ("in-progress", "unread")] == [10, 10]

        eventually(all_there, "ten are answered, ten have not asked")
        for process in service.family():
            process.terminate()
        _stop(service)
        open_gate(service, "g")
        for peer in waits:
            assert peer.answer().closes
        for peer in unread:
            assert peer.get().closes
        for peer in (*waits, *unread):
            assert peer.ends()
    _stopped(service)


def test_a_stop_does_not_wait_for_ever_for_half_a_head(start: Start, tmp_path: Path) -> None:
    """One that does not complete is ended by the deadline for heads (shortened here), long before the drain's."""
    service = start(environment=mutated(tmp_path, HEAD_OF_1_5_S))
    with Peer(service.address()) as peer:
        peer.send(request()[:9])
        seen(service, "half-read")
        _stop(service)
        assert peer.ends()
    _stopped(service)


def test_a_stop_during_a_drain_finishes_what_is_in_progress(start: Start) -> None:
    """What an old worker still had to do when the stop came is done, by the old worker, and told to close."""
    service = start()
    with ExitStack() as stack:
        waits, half, idle = (stack.enter_context(Peer(service.address())) for _ in range(3))
        waits.send(request("/wait?gate=g"))
        half.send(request() + request()[:9])
        half.answer()
        idle.get()
        reached(service, "g")
        reload(service)
        eventually(lambda: any(sum(w.classes.values()) == 2 for w in service.workers("draining")), "two are left")
        _stop(service)
        half.send(request()[9:])
        open_gate(service, "g")
        for peer in (waits, half):
            answer = peer.answer()
            assert (answer.generation, answer.closes) == (1, True)
        for peer in (waits, half, idle):
            assert peer.ends()
    _stopped(service)


def test_a_stop_answers_tls(start: Start, tls: tuple[list[str], ssl.SSLContext]) -> None:
    """A request in progress on a TLS connection is answered, and told to close."""
    options, context = tls
    service = start(*options)
    with tls_peer(service, context) as peer:
        peer.send(request("/wait?gate=g"))
        reached(service, "g")
        _stop(service)
        open_gate(service, "g")
        assert peer.answer().closes
        assert peer.ends()
    _stopped(service)
