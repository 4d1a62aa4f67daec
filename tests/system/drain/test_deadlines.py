"""What becomes of connections that outlast the drain of a worker that retires beside a new generation."""

from __future__ import annotations

import re
import ssl
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.clients import Ended, Peer, request
from tests.system.gated_service import (
    Start,
    gone,
    moved,
    oldest,
    reached,
    reload,
    seen,
    tls_peer,
)
from tests.system.harness import APP, Service, eventually, open_socket
from tests.system.mutations import HEAD_OF_5_S, mutated

SHORT = pytest.mark.xdist_group("short drain")
SOON = 15.0
"""Seconds within which what had 2 or 5 has ended, also where the machine stands still for a while."""


@pytest.fixture
def short_drain(shared: Start) -> Service:
    """One whose drain may take 2 s, and 5 s with a streaming answer."""
    return shared("--drain-timeout", "2", "--drain-timeout-stream", "5")


def _ended_after(service: Service, what: str) -> float:
    """Seconds of a drain after which it ended that, by its log."""
    (said,) = re.findall(rf"drain ended {what} after (\d+\.\d) s", service.log())
    return float(said)


@SHORT
def test_work_behind_an_answer_has_a_deadline(short_drain: Service) -> None:
    """A background task that outlasts the drain is cancelled; its client never notices."""
    service = short_drain
    with Peer(service.address()) as peer:
        peer.get("/background?gate=never")
        new = reload(service)
        moved(service, peer, new)
    assert (service.folder / "never.cancelled").exists()
    assert not (service.folder / "never.done").exists()
    assert 2.0 <= _ended_after(service, "1 background") < SOON


@SHORT
def test_an_endless_stream_that_does_not_listen_is_ended_by_its_deadline(short_drain: Service) -> None:
    """A stream of events whose app does not watch is cut at its own deadline, and others have moved long since.

    That is one line and one event, and nobody calls it an error (no traceback is looked for when the service ends).
    """
    service = short_drain
    with Peer(service.address()) as stream, Peer(service.address()) as idle:
        idle.get()
        stream.send(request("/events?gate=never"))
        seen(service, "stream")
        new = reload(service)
        oldest(service, "stream")
        assert idle.get().generation == new
        with pytest.raises(Ended):
            stream.answer()
        moved(service, idle, new)
    assert 5.0 <= _ended_after(service, "1 stream") < SOON
    eventually(lambda: "cut 1 stream: their time to drain was over" in service.log(), "the supervisor says so, too")


@SHORT
def test_what_does_not_end_is_ended_at_the_deadline(short_drain: Service) -> None:
    """A request that outlasts the drain is cut at its deadline, by the worker itself, which says what it cut."""
    service = short_drain
    with Peer(service.address()) as peer:
        peer.send(request("/wait?gate=never"))
        reached(service, "never")
        new = reload(service)
        gone(service, new - 1)
        assert peer.answer().status == 500
        assert peer.ends()
    assert 2.0 <= _ended_after(service, "1 in-progress") < SOON


def test_a_half_read_head_that_is_not_known_to_the_byte_completes_in_time(start: Start, tmp_path: Path) -> None:
    """A head that began in one read with another request is answered here, and its connection then moves.

    One that does not complete is ended by the deadline for heads (shortened here), long before the drain's.
    """
    shorter = mutated(tmp_path, HEAD_OF_5_S)
    service = start("--http", "httptools", environment=shorter)
    with Peer(service.address()) as completes, Peer(service.address()) as never:
        for peer in (completes, never):
            peer.send(request() + request()[:9])
            assert peer.answer().generation == 1
        eventually(lambda: [w.classes for w in service.workers()] == [{"half-read": 2}], "both are half read")
        reload(service)
        completes.send(request()[9:])
        answer = completes.answer()
        assert (answer.generation, answer.closes) == (1, False)
        eventually(lambda: completes.get().generation == 2, "it moves")
        began = time.monotonic()
        assert never.ends()
        assert time.monotonic() - began < SOON
        never.sock.close()
        gone(service)
        assert completes.get().generation == 2


def test_a_tls_connection_is_answered_once_more(start: Start, tls: tuple[list[str], ssl.SSLContext]) -> None:
    """Its keys cannot move: its next answer, of the old generation, says 'Connection: close'; the silent end late."""
    options, context = tls
    service = start(*options, "--drain-timeout", "6")
    with ExitStack() as stack:
        asks, silent = (stack.enter_context(tls_peer(service, context)) for _ in range(2))
        for peer in (asks, silent):
            assert not peer.get().closes
        began = time.monotonic()
        reload(service)
        answer = asks.get()
        assert (answer.generation, answer.closes) == (1, True)
        assert asks.ends()
        assert silent.ends()
        assert time.monotonic() - began > 6
    gone(service)


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
        service.client.reload(wait="cut-over")
        gone(service, deadline=20)
        client.close()
    assert "did not end its drain in time" in service.log()
