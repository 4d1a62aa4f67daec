"""Clients that send, and that are sent to, without a pause over reloads: each message comes once, in its order."""

from __future__ import annotations

import time

import pytest

from tests.system.gated_service import reload
from tests.system.harness import DEADLINE, FULL, eventually
from tests.system.sessions.conftest import SessionService, Start
from tests.system.sessions.websocket_load import FastSender, Flow, PushedTo, running
from tests.system.sessions.websocket_peer import WebSocketPeer

RELOADS = 3
MESSAGES = 65_000 if FULL else 400
"""That the clients have had together, at least, while a generation serves, before the next reload."""
LONG = 10 * DEADLINE
"""Seconds: it is the messages that are counted, however long they take."""
LOOPS = ["asyncio", "uvloop"] if FULL else ["uvloop"]
HTTP = ["httptools", "h11"] if FULL else ["httptools"]


def exchange(service: SessionService, flows: list[Flow]) -> None:
    """Have the clients at work over all reloads; each message has come once, in its order."""
    began = time.monotonic()
    with running(*flows):
        for number in range(1, RELOADS + 2):
            for flow in flows:
                eventually(lambda: number in flow.generations or flow.wrong, f"generation {number} has {flow}", LONG)  # noqa: B023
            enough = sum(flow.received for flow in flows) + MESSAGES
            eventually(
                lambda: sum(flow.received for flow in flows) >= enough or any(flow.wrong for flow in flows),  # noqa: B023
                f"{enough} messages",
                LONG,
            )
            if number <= RELOADS:
                reload(service)
    messages = sum(flow.received for flow in flows)
    print(f"{messages} messages, {RELOADS} reloads, {time.monotonic() - began:.0f} s: {service.status().crossing}")


@pytest.mark.parametrize("http", HTTP)
@pytest.mark.parametrize("loop", LOOPS)
def test_every_message_once(loop: str, http: str, start: Start) -> None:
    """With permessage-deflate and without; each of the generations had each client."""
    service = start("--loop", loop, "--http", http)
    address = service.address()
    flows: list[Flow] = [FastSender(WebSocketPeer(address, deflate=15)), PushedTo(WebSocketPeer(address, "/push"))]
    if FULL:
        flows += [FastSender(WebSocketPeer(address)), PushedTo(WebSocketPeer(address, "/push", deflate=12))]
    exchange(service, flows)
    assert [flow.generations for flow in flows] == [set(range(1, RELOADS + 2))] * len(flows)
    for flow in flows:
        flow.peer.sock.close()
