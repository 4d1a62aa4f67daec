"""What becomes of each class of connection when its worker retires: beside a new generation, and in a final stop."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed

from supervisor.wire.control import WorkerView
from tests.system.clients import Answer, Ended, Peer, request
from tests.system.gated import BIG
from tests.system.harness import APP, ROOT, Service, eventually, mutated, open_socket

PARSERS = pytest.mark.parametrize("http", ["httptools", "h11"])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts the gated app with options of its own."""
    with ExitStack() as stack:

        def started(*options: str, workers: int = 1, environment: dict[str, str] | None = None) -> Service:
            gated = ("tests.system.gated:app", "--app-dir", str(ROOT), "--no-access-log")
            service = Service(tmp_path, *gated, *options, workers=workers, environment=environment)
            service.tracebacks_expected = True  # a request that is cancelled at its deadline is logged by uvicorn
            return stack.enter_context(service)

        yield started


Start = Callable[..., Service]


def _open(service: Service, gate: str) -> None:
    (service.folder / gate).touch()


def _reached(service: Service, gate: str) -> None:
    """Wait until a request waits at the gate."""
    eventually((service.folder / f"{gate}.reached").exists, f"somebody is at gate {gate}")


def _seen(service: Service, *kinds: str) -> None:
    """Wait until the serving workers have said that they have such connections."""
    eventually(lambda: set(kinds) <= {k for w in service.workers() for k in w.classes}, f"{kinds} at the workers")


def _reload(service: Service) -> None:
    reload = service.reload()
    assert reload.returncode == 0, reload.stdout + reload.stderr


def _old(service: Service, kind: str) -> WorkerView:
    """Wait until the draining worker says that it has one connection of that class, and nothing else."""

    def look() -> WorkerView | None:
        return next((w for w in service.workers("draining") if w.classes == {kind: 1}), None)

    return eventually(look, f"the old worker has one {kind} connection left")


def _gone(service: Service, generation: int = 1, deadline: float = 5) -> None:
    """Wait until a generation has left. Sooner than any deadline of its classes: so it has nothing to wait for."""
    eventually(lambda: generation not in service.generations(), f"generation {generation} leaves", deadline)


def _moved(service: Service, peer: Peer) -> None:
    """The connection is open, the old generation gone, and the new one answers, twice, and does not say close."""
    _gone(service)
    assert peer.is_open()
    for _ in range(2):
        answer = peer.get()
        assert (answer.generation, answer.closes) == (2, False)


# While old and new both live


@PARSERS
def test_an_unread_connection_moves(start: Start, http: str) -> None:
    """A connection that has said nothing yet is answered by the new generation, and the old one waits for nothing."""
    service = start("--http", http)
    with Peer(service.address()) as peer:
        _seen(service, "unread")
        _reload(service)
        _moved(service, peer)


@PARSERS
def test_an_idle_connection_moves(start: Start, http: str) -> None:
    """A kept connection goes on with the new generation."""
    service = start("--http", http)
    with Peer(service.address()) as peer:
        assert peer.get().generation == 1
        _reload(service)
        _moved(service, peer)


@PARSERS
@pytest.mark.parametrize("asked", [False, True], ids=["first", "later"])
def test_a_half_read_head_moves_with_its_bytes(start: Start, http: str, *, asked: bool) -> None:
    """A request whose head was half sent at the reload is answered by the new generation, which has both halves."""
    service = start("--http", http)
    with Peer(service.address()) as peer:
        if asked:
            peer.get()
        peer.send(request()[:9])
        _seen(service, "half-read")
        _reload(service)
        _gone(service)
        peer.send(request()[9:])
        assert peer.answer().generation == 2


def test_a_half_read_head_that_is_not_known_to_the_byte_completes_in_time(start: Start, tmp_path: Path) -> None:
    """A head that began in one read with another request is answered here, and its connection then moves.

    One that does not complete is ended by the deadline for heads (shortened here), long before the drain's.
    """
    shorter = mutated(tmp_path, ("core/drain.py", "_HEAD = 10.0\n", "_HEAD = 3.0\n"))
    service = start("--http", "httptools", environment=shorter)
    with Peer(service.address()) as completes, Peer(service.address()) as never:
        for peer in (completes, never):
            peer.send(request() + request()[:9])
            assert peer.answer().generation == 1
        eventually(lambda: [w.classes for w in service.workers()] == [{"half-read": 2}], "both are half read")
        _reload(service)
        completes.send(request()[9:])
        answer = completes.answer()
        assert (answer.generation, answer.closes) == (1, False)
        eventually(lambda: completes.get().generation == 2, "it moves")
        began = time.monotonic()
        assert never.ends()
        assert time.monotonic() - began < 6
        never.sock.close()
        _gone(service)
        assert completes.get().generation == 2


@PARSERS
def test_a_request_in_progress_finishes_and_moves(start: Start, http: str) -> None:
    """A request under way at the cut-over is answered in full; then its connection moves. It is not told to close.

    Meanwhile `status` says what the old worker waits for, and since when.
    """
    service = start("--http", http)
    with Peer(service.address()) as peer:
        peer.send(request("/wait?gate=g"))
        _reached(service, "g")
        _reload(service)
        first = _old(service, "in-progress")
        assert first.oldest.keys() == {"in-progress"}
        eventually(
            lambda: _old(service, "in-progress").oldest["in-progress"] > first.oldest["in-progress"] + 0.5,
            "it has been in progress for longer",
        )
        _open(service, "g")
        answer = peer.answer()
        assert (answer.generation, answer.closes) == (1, False)
        _moved(service, peer)


@PARSERS
def test_pipelined_requests_are_answered_first_and_in_order(start: Start, http: str) -> None:
    """Requests that were read behind one in progress are answered by the generation that has them, in their order."""
    service = start("--http", http)
    with Peer(service.address()) as peer:
        peer.send(b"".join(request(f"/wait?gate={gate}") for gate in "abc"))
        _reached(service, "a")
        _reload(service)
        for gate in "abc":
            _open(service, gate)
        answers = [peer.answer() for _ in range(3)]
        assert [answer.body[-1] for answer in answers] == list("abc")
        assert {answer.generation for answer in answers} == {1}
        _moved(service, peer)


@PARSERS
def test_an_upload_finishes_and_moves(start: Start, http: str) -> None:
    """An upload that is under way arrives whole; then its connection moves."""
    service = start("--http", http)
    with Peer(service.address()) as peer:
        peer.send(request("/upload?gate=g", "Content-Length: 200000", method="POST") + b"x" * 100_000)
        _reached(service, "g")
        _reload(service)
        _old(service, "in-progress")
        peer.send(b"x" * 100_000)
        answer = peer.answer()
        assert (answer.body, answer.closes) == ("200000", False)
        _moved(service, peer)


@PARSERS
def test_a_chunked_answer_finishes_and_moves(start: Start, http: str) -> None:
    """An answer in chunks is sent to its last chunk; then its connection moves."""
    service = start("--http", http)
    with Peer(service.address()) as peer:
        peer.send(request("/chunked?gate=g"))
        _reached(service, "g")
        _reload(service)
        _old(service, "in-progress")
        _open(service, "g")
        answer = peer.answer()
        assert (answer.generation, answer.closes) == (1, False)
        assert answer.body.endswith("and that is all")
        _moved(service, peer)


@PARSERS
def test_a_body_whose_answer_came_early_is_read_to_its_end(start: Start, http: str) -> None:
    """The old generation, which answered, takes the rest of the body; then the connection moves."""
    service = start("--http", http)
    with Peer(service.address()) as peer:
        peer.send(request("/early", "Content-Length: 200000", method="POST") + b"x" * 100_000)
        answer = peer.answer()
        assert (answer.generation, answer.closes) == (1, False)
        _seen(service, "answered")
        _reload(service)
        _old(service, "answered")
        peer.send(b"x" * 100_000)
        _moved(service, peer)


@PARSERS
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_an_answer_that_is_not_sent_yet_is_sent_first(start: Start, http: str, loop: str) -> None:
    """What the app has written and the client has not read keeps a connection here; when all has left, it moves."""
    service = start("--http", http, "--loop", loop)
    with Peer(service.address()) as peer:
        peer.send(request("/big"))
        eventually(lambda: not peer.is_open(), "the answer begins")
        _reload(service)
        _old(service, "idle")
        answer = peer.answer()
        assert (answer.generation, answer.closes, len(answer.body)) == (1, False, BIG)
        _moved(service, peer)


@PARSERS
def test_a_connection_does_not_wait_for_the_work_behind_its_answer(start: Start, http: str) -> None:
    """With a background task after its answer a connection moves at once; the task goes on in the old process."""
    service = start("--http", http)
    with Peer(service.address()) as peer:
        assert peer.get("/background?gate=g").generation == 1
        _reload(service)
        _old(service, "background")
        assert peer.get().generation == 2
        assert not (service.folder / "g.done").exists()
        _open(service, "g")
        _moved(service, peer)
    assert (service.folder / "g.done").exists()


def test_work_behind_an_answer_has_a_deadline(start: Start) -> None:
    """A background task that outlasts the drain is cancelled; its client never notices."""
    service = start("--drain-timeout", "1.5")
    with Peer(service.address()) as peer:
        peer.get("/background?gate=never")
        _reload(service)
        _old(service, "background")
        _moved(service, peer)
    assert (service.folder / "never.cancelled").exists()
    assert not (service.folder / "never.done").exists()
    assert "drain ended 1 background after 1.5 s" in service.log()


@PARSERS
def test_an_endless_stream_ends_well_and_its_connection_moves(start: Start, http: str) -> None:
    """An app that watches `state.stillup.draining` ends its events in order; the connection is kept even then."""
    service = start("--http", http)
    with Peer(service.address()) as peer:
        peer.send(request("/events"))
        _seen(service, "stream")
        _reload(service)
        answer = peer.answer()
        assert "event: bye" in answer.body
        assert (answer.headers["content-type"], answer.closes) == ("text/event-stream", False)
        _moved(service, peer)


def test_an_endless_stream_that_does_not_listen_is_ended_by_its_deadline(start: Start) -> None:
    """A stream of events whose app does not watch is cut at the drain's deadline, and others have moved long since."""
    service = start("--drain-timeout", "2")
    with Peer(service.address()) as stream, Peer(service.address()) as idle:
        idle.get()
        stream.send(request("/events?gate=never"))
        _seen(service, "stream")
        _reload(service)
        assert _old(service, "stream").oldest.keys() == {"stream"}
        assert idle.get().generation == 2
        with pytest.raises(Ended):
            stream.answer()
        _moved(service, idle)
    assert "drain ended 1 stream after 2.0 s" in service.log()


@pytest.mark.parametrize("implementation", ["websockets-sansio", "websockets", "wsproto"])
def test_a_websocket_is_told_1012(start: Start, implementation: str) -> None:
    """A WebSocket gets the close code that means 'service restart', and the old generation leaves."""
    service = start("--ws", implementation)
    with websockets.sync.client.connect(f"ws://{service.address()}/") as client:
        client.send("a")
        assert str(client.recv()).endswith("a")
        _reload(service)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    _gone(service)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], ssl.SSLContext]:
    """The options of a server with a certificate of localhost, and a client who trusts it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl command, which makes the certificate, is not here")
    where = tmp_path_factory.mktemp("tls")
    certificate, key = str(where / "certificate.pem"), str(where / "key.pem")
    ask = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([openssl, *ask, *name, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return ["--ssl-certfile", certificate, "--ssl-keyfile", key], ssl.create_default_context(cafile=certificate)


def _tls_peer(service: Service, context: ssl.SSLContext) -> Peer:
    return Peer("", context.wrap_socket(open_socket(service.address()), server_hostname="localhost"))


def test_a_tls_connection_is_answered_once_more(start: Start, tls: tuple[list[str], ssl.SSLContext]) -> None:
    """Its keys cannot move: its next answer, of the old generation, says 'Connection: close'; the silent end late."""
    options, context = tls
    service = start(*options, "--drain-timeout", "3", "--timeout-keep-alive", "60")
    with ExitStack() as stack:
        asks, silent = (stack.enter_context(_tls_peer(service, context)) for _ in range(2))
        for peer in (asks, silent):
            assert not peer.get().closes
        began = time.monotonic()
        _reload(service)
        answer = asks.get()
        assert (answer.generation, answer.closes) == (1, True)
        assert asks.ends()
        assert silent.ends()
        assert time.monotonic() - began > 3
    _gone(service)


def test_what_does_not_end_is_ended_at_the_deadline(start: Start) -> None:
    """A request that outlasts the drain is cut at its deadline, by the worker itself, which says what it cut."""
    service = start("--drain-timeout", "1.5")
    with Peer(service.address()) as peer:
        peer.send(request("/wait?gate=never"))
        _reached(service, "never")
        began = time.monotonic()
        _reload(service)
        _gone(service)
        assert time.monotonic() - began < 6
        assert peer.answer().status == 500
        assert peer.ends()
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
        client.sendall(request("/block"))
        eventually((tmp_path / "blocked").exists, "its loop is blocked")
        service.write()
        assert service.reload().returncode == 0
        _gone(service, deadline=20)
        client.close()
    assert "did not end its drain in time" in service.log()


# Final stop


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
    assert service.process.wait(5) == 0


@PARSERS
def test_a_stop_answers_the_unread(start: Start, http: str) -> None:
    """A connection whose first request had not come when the stop did is answered, and told to close."""
    service = start("--http", http)
    with Peer(service.address()) as peer:
        _seen(service, "unread")
        _stop(service)
        assert peer.get().closes
        assert peer.ends()
    _stopped(service)


@PARSERS
def test_a_stop_closes_the_idle_in_a_spread(start: Start, http: str) -> None:
    """Idle connections are closed within a second, not all at once; whoever asks before its turn is answered."""
    service = start("--http", http)
    with ExitStack() as stack:
        asking, silent = ([stack.enter_context(Peer(service.address())) for _ in range(10)] for _ in range(2))
        for peer in (*asking, *silent):
            peer.get()
        eventually(lambda: [w.classes for w in service.workers()] == [{"idle": 20}], "all are idle")
        _stop(service)
        began = time.monotonic()
        answers: list[Answer] = []
        for peer in asking:
            with suppress(Ended, BrokenPipeError, ConnectionResetError):  # those whose turn was first
                answers.append(peer.get())
        assert answers
        assert all(answer.closes for answer in answers)
        for peer in (*silent, *asking):
            assert peer.ends()
        assert 0.2 < time.monotonic() - began < 2
    _stopped(service)


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
        _open(service, "g")
        for peer in waits:
            assert peer.answer().closes
        for peer in unread:
            assert peer.get().closes
        for peer in (*waits, *unread):
            assert peer.ends()
    _stopped(service)


@PARSERS
def test_a_stop_completes_a_half_read_head(start: Start, http: str) -> None:
    """A request whose head was half here is answered, and told to close."""
    service = start("--http", http)
    with Peer(service.address()) as peer:
        peer.send(request()[:9])
        _seen(service, "half-read")
        _stop(service)
        peer.send(request()[9:])
        assert peer.answer().closes
        assert peer.ends()
    _stopped(service)


def test_a_stop_does_not_wait_for_ever_for_half_a_head(start: Start, tmp_path: Path) -> None:
    """One that does not complete is ended by the deadline for heads (shortened here), long before the drain's."""
    service = start(environment=mutated(tmp_path, ("core/drain.py", "_HEAD = 10.0\n", "_HEAD = 1.5\n")))
    with Peer(service.address()) as peer:
        peer.send(request()[:9])
        _seen(service, "half-read")
        _stop(service)
        assert peer.ends()
    _stopped(service)


@PARSERS
def test_a_stop_finishes_what_is_in_progress(start: Start, http: str) -> None:
    """A request in progress and an upload are answered in full, and told to close."""
    service = start("--http", http)
    with ExitStack() as stack:
        waits, upload, pipelined = (stack.enter_context(Peer(service.address())) for _ in range(3))
        waits.send(request("/wait?gate=g"))
        upload.send(request("/upload?gate=u", "Content-Length: 200000", method="POST") + b"x" * 100_000)
        pipelined.send(request("/wait?gate=a") + request("/wait?gate=b"))
        for gate in "gua":
            _reached(service, gate)
        _stop(service)
        upload.send(b"x" * 100_000)
        answer = upload.answer()
        assert (answer.body, answer.closes) == ("200000", True)
        for gate in "gab":
            _open(service, gate)
        assert waits.answer().closes
        assert pipelined.answer().closes  # which says that what is behind it will not be answered (RFC 9112, 9.6)
        for peer in (waits, upload, pipelined):
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
        _reached(service, "g")
        _reload(service)
        eventually(lambda: any(sum(w.classes.values()) == 2 for w in service.workers("draining")), "two are left")
        _stop(service)
        half.send(request()[9:])
        _open(service, "g")
        for peer in (waits, half):
            answer = peer.answer()
            assert (answer.generation, answer.closes) == (1, True)
        for peer in (waits, half, idle):
            assert peer.ends()
    _stopped(service)


@PARSERS
def test_a_stop_finishes_a_chunked_answer(start: Start, http: str) -> None:
    """An answer in chunks is sent to its last chunk; then its connection, which was told nothing else, is closed."""
    service = start("--http", http)
    with Peer(service.address()) as peer:
        peer.send(request("/chunked?gate=g"))
        _reached(service, "g")
        _stop(service)
        _open(service, "g")
        assert peer.answer().body.endswith("and that is all")
        assert peer.ends()
    _stopped(service)


@PARSERS
def test_a_stop_closes_what_is_answered(start: Start, http: str) -> None:
    """A body whose answer is out is not waited for, and the answer is not lost by the close."""
    service = start("--http", http)
    with Peer(service.address()) as peer:
        peer.send(request("/early", "Content-Length: 200000", method="POST") + b"x" * 100_000)
        _seen(service, "answered")
        _stop(service)
        assert peer.answer().generation == 1
        assert peer.ends()
        peer.sock.close()
    _stopped(service)


def test_a_stop_waits_for_the_work_behind_an_answer(start: Start) -> None:
    """A background task goes on to its end although its connection is closed."""
    service = start()
    with Peer(service.address()) as peer:
        peer.get("/background?gate=g")
        _stop(service)
        assert peer.ends()
        _open(service, "g")
    _stopped(service)
    assert (service.folder / "g.done").exists()


def test_a_stop_tells_streams_and_websockets(start: Start) -> None:
    """An app that watches `state.stillup.draining` ends its events in order; a WebSocket is told 1012."""
    service = start()
    with (
        Peer(service.address()) as stream,
        websockets.sync.client.connect(f"ws://{service.address()}/") as websocket,
    ):
        stream.send(request("/events"))
        _seen(service, "stream", "websocket")
        _stop(service)
        assert "event: bye" in stream.answer().body
        assert stream.ends()
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    _stopped(service)


def test_a_stop_answers_tls(start: Start, tls: tuple[list[str], ssl.SSLContext]) -> None:
    """A request in progress on a TLS connection is answered, and told to close."""
    options, context = tls
    service = start(*options)
    with _tls_peer(service, context) as peer:
        peer.send(request("/wait?gate=g"))
        _reached(service, "g")
        _stop(service)
        _open(service, "g")
        assert peer.answer().closes
        assert peer.ends()
    _stopped(service)


def test_an_answer_given_early_arrives_although_the_body_still_comes(tmp_path: Path) -> None:
    """A close after an early answer does not destroy it: the rest of the body is read and dropped first."""
    service = Service(tmp_path)
    service.write()
    with service, Peer(service.address()) as peer:
        peer.send(request("/", "Connection: close", "Content-Length: 3000000", method="POST"))
        eventually(lambda: not peer.is_open(), "the answer")
        for _ in range(30):
            peer.send(b"x" * 100_000)
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.answer().status == 200
        assert peer.ends()
