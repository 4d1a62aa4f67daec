"""What a client sees of a reload whose WebSockets go on: nothing, whatever it was in the middle of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.system.client_group import frozen, until_waiting, worker_pids
from tests.system.gated_service import gone, open_gate, reached, reload, reloaded
from tests.system.harness import eventually
from tests.system.sessions.conftest import SessionService
from tests.system.sessions.websocket_peer import PING, PONG, TEXT, WebSocketPeer, frame

pytestmark = pytest.mark.xdist_group("sessions")

CUTS = (1, 2, 3, 4, 5, 6, 7, 9, 10, 13, 14, 40, -1)
"""Bytes of a frame that came before the reload; -1: all but the last."""
TEXTS = ("short", "m" * 126, "x" * 300, "lorem ipsum dolor " * 5000)
"""One for each length that a frame's head can say, and one that is read in several pieces."""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SessionService]:
    """One for those who leave it as it was."""
    with SessionService(tmp_path_factory.mktemp("sessions")) as service:
        yield service


@pytest.fixture
def service(started: SessionService) -> SessionService:
    """The service at rest, with the files of no test before."""
    eventually(lambda: len(started.generations()) == 1, "one generation")
    eventually(lambda: not any(worker.classes for worker in started.workers()), "nobody is connected")
    for file in started.folder.glob("*"):
        if file.is_file() and file not in (started.log_file, started.env_file):
            file.unlink()
    return started


@pytest.mark.parametrize("deflate", [0, 12, 15])
def test_half_a_frame(service: SessionService, stack: ExitStack, deflate: int) -> None:
    """A frame that was cut anywhere arrives whole at the next worker, and the one after it, too."""
    cases = []
    for text in TEXTS:
        for cut in CUTS:
            peer = stack.enter_context(WebSocketPeer(service.address(), deflate=deflate))
            for warm in ("lorem ipsum dolor " * 3, os.urandom(2000).hex()):
                peer.ask(warm)
            sent = peer.text(text)
            at = min(cut, len(sent) - 1) if cut > 0 else len(sent) - 1
            peer.send(sent[:at])
            cases.append((peer, text, sent[at:]))
    service.counted("session", len(cases))
    new = reload(service)
    gone(service, new - 1)
    for peer, text, rest in cases:
        peer.send(rest)
        assert (reply := peer.reply()).text == text
        assert (reply.generation, reply.count) == (new, 3)
        assert peer.ask("lorem ipsum dolor " * 4).count == 4


def test_fragments_and_control_frames(service: SessionService, stack: ExitStack) -> None:
    """A message in fragments comes to its end first; pings are answered, also one that was cut by the reload."""
    fragments, pinging = (stack.enter_context(WebSocketPeer(service.address())) for _ in range(2))
    fragments.send(frame(TEXT, b"one ", fin=False))
    ping = frame(PING, b"are you there")
    pinging.send(ping[:9])
    service.counted("session", 2)
    new = reload(service)
    fragments.send(frame(0, b"and ", fin=False) + frame(PING, b"in between") + frame(0, b"two"))
    assert fragments.receive() == (PONG, b"in between")
    assert fragments.reply().text == "one and two"
    pinging.send(ping[9:])
    assert pinging.receive() == (PONG, b"are you there")
    gone(service, new - 1)
    assert [peer.ask("next").generation for peer in (fragments, pinging)] == [new, new]


def test_messages_that_wait_travel(service: SessionService, stack: ExitStack) -> None:
    """What the app had not received when it handed over is received by the next one, in its order.

    That one is called with the same request, and knows that it was answered before: nobody is charged twice.
    """
    peer = stack.enter_context(WebSocketPeer(service.address()))
    peer.send(peer.text("gate g"))
    reached(service, "g")
    for number in range(40):
        peer.send(peer.text(f"{number} " + "y" * 3000))
    new = reload(service)
    service.drain_is_known()
    open_gate(service, "g")
    replies = [peer.reply() for _ in range(41)]
    assert [reply.count for reply in replies] == list(range(1, 42))
    assert [reply.text.split()[0] for reply in replies] == ["gate", *map(str, range(40))]
    assert replies[0].generation == new - 1
    assert {reply.generation for reply in replies[1:]} == {new}
    assert [line[0] for line in service.noted("charged")] == [str(new - 1)]


def test_who_leaves_in_between_leaves_the_new_app(service: SessionService, stack: ExitStack) -> None:
    """A close frame, and an end without one, between the hand-off and the next worker: that one's app is told."""
    closing, vanishing = (stack.enter_context(WebSocketPeer(service.address(), f"/echo?{name}")) for name in "cv")
    for gate, peer in (("c", closing), ("v", vanishing)):
        peer.send(peer.text(f"gate {gate}"))
        reached(service, gate)
    new = reload(service)
    service.drain_is_known()
    with frozen(list(worker_pids(service).values())):
        for gate, peer in (("c", closing), ("v", vanishing)):
            open_gate(service, gate)
            assert peer.reply().generation == new - 1
        until_waiting(service, 2)
        closing.close(4000)
        vanishing.sock.close()
    assert closing.close_code() == 4000

    def left() -> dict[str, tuple[str, str]]:
        """By name, in which generation, and with which code; others may still leave whom a test before had."""
        return {line[4]: (line[0], line[3]) for line in service.noted("left") if line[4:]}

    eventually(lambda: left().keys() == {"c", "v"}, "both have left")
    assert left()["c"] == (str(new), "4000")
    assert left()["v"][0] == str(new)


def test_large_state(service: SessionService, stack: ExitStack) -> None:
    """A state of any size up to the limit goes on whole."""
    peer = stack.enter_context(WebSocketPeer(service.address()))
    for size in (7_000, 9_000, 1_000_000):
        before = peer.ask(f"pad {size}")
        reloaded(service)
        after = peer.ask("padded")
        assert after.text == f"{size} bytes"
        assert (after.generation, after.count) == (before.generation + 1, before.count + 1)
