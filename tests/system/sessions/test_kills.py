"""Workers that are killed around a hand-off: only what they held is lost."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

import pytest

from tests.system.client_group import frozen, until_waiting, worker_pids
from tests.system.clients import Ended
from tests.system.gated_service import gone, open_gate, reached, reload
from tests.system.harness import eventually
from tests.system.sessions.conftest import SessionService, Start
from tests.system.sessions.websocket_peer import WebSocketPeer

pytestmark = pytest.mark.xdist_group("sessions")


def _at_gates(service: SessionService, stack: ExitStack, gate: str, number: int) -> list[WebSocketPeer]:
    """So many clients, each of whose app is busy until its gate is open."""
    peers = []
    for place in range(number):
        peer = stack.enter_context(WebSocketPeer(service.address()))
        peer.send(peer.text(f"gate {gate}{place}"))
        reached(service, f"{gate}{place}")
        peers.append(peer)
    return peers


def _lost(peers: list[WebSocketPeer]) -> list[WebSocketPeer]:
    """Whose connection ended before a reply came."""
    lost = []
    for peer in peers:
        try:
            peer.reply()
        except Ended:
            lost.append(peer)
    return lost


def test_the_old_worker_is_killed(start: Start, stack: ExitStack) -> None:
    """It takes those with it that its app had not handed over; those in the queue are not its any more."""
    service = start()
    handed, held = _at_gates(service, stack, "a", 20), _at_gates(service, stack, "b", 5)
    victim = worker_pids(service)["1.1"]
    reload(service)
    service.drain_is_known()
    with frozen(list(worker_pids(service).values())):
        for place in range(len(handed)):
            open_gate(service, f"a{place}")
        assert not _lost(handed)
        until_waiting(service, len(handed))
        os.kill(victim, signal.SIGKILL)
        gone(service)
    assert _lost(held) == held
    assert [peer.ask("on").count for peer in handed] == [2] * len(handed)


def test_the_new_worker_is_killed(start: Start, stack: ExitStack) -> None:
    """It takes those with it that it had adopted; those in the queue go on with who is started in its place."""
    service = start()
    adopted, waiting = _at_gates(service, stack, "a", 5), _at_gates(service, stack, "b", 20)
    reload(service)
    service.drain_is_known()
    victim = worker_pids(service)["2.1"]
    for place in range(len(adopted)):
        open_gate(service, f"a{place}")
    assert not _lost(adopted)
    assert [peer.ask("on").pid for peer in adopted] == [victim] * len(adopted)
    with frozen([victim]):
        for place in range(len(waiting)):
            open_gate(service, f"b{place}")
        assert not _lost(waiting)
        until_waiting(service, len(waiting))
        os.kill(victim, signal.SIGKILL)
    assert _lost(adopted) == adopted
    replies = [peer.ask("on") for peer in waiting]
    assert [reply.count for reply in replies] == [2] * len(waiting)
    assert victim not in {reply.pid for reply in replies}
    eventually(lambda: len(worker_pids(service)) == 1, "its slot is filled")
