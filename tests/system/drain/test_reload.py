"""What becomes of each class of connection when its worker retires beside a new generation."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest
import websockets.sync.client
from uvicorn.config import WS_PROTOCOLS
from websockets.exceptions import ConnectionClosed

from tests.asgi.served_app import skip_without_websockets
from tests.system.clients import Peer, request
from tests.system.gated_app import BIG
from tests.system.gated_service import (
    Start,
    gone,
    moved,
    old_worker_with,
    oldest,
    open_gate,
    reached,
    reload,
    seen,
)
from tests.system.harness import DEADLINE, Service, eventually

pytestmark = pytest.mark.xdist_group("drain")

SERVICES = {
    ("httptools", "uvloop"): "websockets-sansio",
    ("h11", "uvloop"): "wsproto",
    ("httptools", "asyncio"): "websockets",
    ("h11", "asyncio"): "websockets",
}
"""Parser, loop and implementation of WebSockets of the services that most tests share."""


def _options(http: str, loop: str) -> tuple[str, ...]:
    implementation = SERVICES[http, loop]
    return "--http", http, "--loop", loop, "--ws", implementation if implementation in WS_PROTOCOLS else "auto"


@pytest.fixture(params=["httptools", "h11"])
def service(request: pytest.FixtureRequest, shared: Start) -> Service:
    """One with each parser."""
    return shared(*_options(request.param, "uvloop"))


@pytest.fixture(params=SERVICES, ids="-".join)
def service_of_each_loop(request: pytest.FixtureRequest, shared: Start) -> Service:
    """One with each parser and each event loop."""
    return shared(*_options(*request.param))


def test_who_has_no_whole_request_moves_at_once(service: Service) -> None:
    """The old generation waits for nothing, and the new one answers.

    A connection that has said nothing yet, an idle one, and two with a half sent head, which moves with its bytes: that
    of the first request, and that of a later one.
    """
    with ExitStack() as stack:
        unread, idle, first, later = (stack.enter_context(Peer(service.address())) for _ in range(4))
        old = {peer.get().generation for peer in (idle, later)}
        for half in (first, later):
            half.send(request()[:9])
        classes = {"unread": 1, "idle": 1, "half-read": 2}
        eventually(lambda: [worker.classes for worker in service.workers()] == [classes], "all are there")
        new = reload(service)
        assert old == {new - 1}
        for peer in (unread, idle):
            moved(service, peer, new)
        for half in (first, later):
            half.send(request()[9:])
            assert half.answer().generation == new


def test_a_request_in_progress_finishes_and_moves(service: Service) -> None:
    """A request under way at the cut-over is answered in full; then its connection moves. It is not told to close.

    Meanwhile `status` says what the old worker waits for, and since when.
    """
    with Peer(service.address()) as peer:
        peer.send(request("/wait?gate=g"))
        reached(service, "g")
        new = reload(service)
        first = oldest(service, "in-progress")
        eventually(lambda: oldest(service, "in-progress") > first + 0.5, "it has been in progress for longer")
        open_gate(service, "g")
        answer = peer.answer()
        assert (answer.generation, answer.closes) == (new - 1, False)
        moved(service, peer, new)


def test_pipelined_requests_are_answered_first_and_in_order(service: Service) -> None:
    """Requests that were read behind one in progress are answered by the generation that has them, in their order."""
    with Peer(service.address()) as peer:
        peer.send(b"".join(request(f"/wait?gate={gate}") for gate in "abc"))
        reached(service, "a")
        new = reload(service)
        for gate in "abc":
            open_gate(service, gate)
        answers = [peer.answer() for _ in range(3)]
        assert [answer.body[-1] for answer in answers] == list("abc")
        assert {answer.generation for answer in answers} == {new - 1}
        moved(service, peer, new)


def test_an_upload_finishes_and_moves(service: Service) -> None:
    """An upload that is under way arrives whole; then its connection moves."""
    with Peer(service.address()) as peer:
        peer.send(request("/upload?gate=g", "Content-Length: 200000", method="POST") + b"x" * 100_000)
        reached(service, "g")
        new = reload(service)
        old_worker_with(service, "in-progress")
        peer.send(b"x" * 100_000)
        answer = peer.answer()
        assert (answer.body, answer.closes) == ("200000", False)
        moved(service, peer, new)


def test_a_chunked_answer_finishes_and_moves(service: Service) -> None:
    """An answer in chunks is sent to its last chunk; then its connection moves."""
    with Peer(service.address()) as peer:
        peer.send(request("/chunked?gate=g"))
        reached(service, "g")
        new = reload(service)
        old_worker_with(service, "stream")
        open_gate(service, "g")
        answer = peer.answer()
        assert (answer.generation, answer.closes) == (new - 1, False)
        assert answer.body.endswith("and that is all")
        moved(service, peer, new)


def test_a_body_whose_answer_came_early_is_read_to_its_end(service: Service) -> None:
    """The old generation, which answered, takes the rest of the body; then the connection moves."""
    with Peer(service.address()) as peer:
        peer.send(request("/early", "Content-Length: 200000", method="POST") + b"x" * 100_000)
        answer = peer.answer()
        assert not answer.closes
        seen(service, "answered")
        new = reload(service)
        assert answer.generation == new - 1
        old_worker_with(service, "answered")
        peer.send(b"x" * 100_000)
        moved(service, peer, new)


def test_an_answer_given_early_arrives_although_the_body_still_comes(service: Service) -> None:
    """A close after an early answer does not destroy it: the rest of the body is read and dropped first."""
    with Peer(service.address()) as peer:
        peer.send(request("/early", "Connection: close", "Content-Length: 3000000", method="POST"))
        eventually(lambda: not peer.is_open(), "the answer")
        for _ in range(30):
            peer.send(b"x" * 100_000)
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.answer().status == 200
        assert peer.ends()


def test_an_answer_that_is_not_sent_yet_is_sent_first(service_of_each_loop: Service) -> None:
    """What the app has written and the client has not read keeps a connection here; when all has left, it moves."""
    service = service_of_each_loop
    with Peer(service.address()) as peer:
        peer.send(request("/big"))
        eventually(lambda: not peer.is_open(), "the answer begins")
        new = reload(service)
        old_worker_with(service, "idle")
        answer = peer.answer()
        assert (answer.generation, answer.closes, len(answer.body)) == (new - 1, False, BIG)
        moved(service, peer, new)


def test_a_connection_does_not_wait_for_the_work_behind_its_answer(service: Service) -> None:
    """With a background task after its answer a connection moves at once; the task goes on in the old process."""
    with Peer(service.address()) as peer:
        old = peer.get("/background?gate=g").generation
        new = reload(service)
        assert new == old + 1
        old_worker_with(service, "background")
        assert peer.get().generation == new
        assert not (service.folder / "g.done").exists()
        open_gate(service, "g")
        moved(service, peer, new)
    assert (service.folder / "g.done").exists()


def test_an_endless_stream_ends_well_and_its_connection_moves(service: Service) -> None:
    """An app that watches `state.stillup.draining` ends its events in order; the connection is kept even then."""
    with Peer(service.address()) as peer:
        peer.send(request("/events"))
        seen(service, "stream")
        new = reload(service)
        answer = peer.answer()
        assert "event: bye" in answer.body
        assert (answer.headers["content-type"], answer.closes) == ("text/event-stream", False)
        moved(service, peer, new)


@pytest.mark.parametrize("implementation", ["websockets-sansio", "websockets", "wsproto"])
def test_a_websocket_is_told_1012(shared: Start, implementation: str) -> None:
    """A WebSocket gets the close code that means 'service restart', and the old generation leaves."""
    skip_without_websockets(implementation)
    service = shared(*next(_options(*key) for key, value in SERVICES.items() if value == implementation))
    with websockets.sync.client.connect(f"ws://{service.address()}/") as client:
        client.send("a")
        assert str(client.recv()).endswith("a")
        new = reload(service)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=DEADLINE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    gone(service, new - 1)
