"""What an operator sees of sessions: in what ``reload`` prints, in ``status``, ``/metrics`` and the events."""

from __future__ import annotations

import re
from contextlib import ExitStack

from tests.system.gated_service import gone
from tests.system.harness import connect, eventually
from tests.system.sessions.conftest import SessionService, Start
from tests.system.sessions.websocket_peer import WebSocketPeer


def test_figures_of_two_reloads(start: Start, stack: ExitStack) -> None:
    """Three sessions go on, and then do not: each figure says so, and still does when all who held them are gone."""
    service = start()
    peers = [stack.enter_context(WebSocketPeer(service.address())) for _ in range(3)]
    for peer in peers:
        peer.ask("a")
    said = service.cli("reload", "--wait", "drained").stdout
    assert re.search(r"moved     3 connections \(3 sessions\), longest pause \d+ ms", said), said
    service.logged("gen 1 has left: 3 connections (3 sessions) moved on, 0 closed")
    assert [peer.ask("b").count for peer in peers] == [2, 2, 2]
    service.next_release(KNOWS=0)
    service.cli("reload", "--wait", "drained")
    for peer in peers:
        assert peer.close_code() == 1012
    eventually(lambda: service.refused("unaware") == 3, "they are counted")
    assert "6 adopted (6 sessions), 3 did not go on, " in service.cli("status").stdout
    metrics = _metrics(service)
    assert metrics['stillup_sessions_total{event="given"}'] == 6
    assert metrics['stillup_sessions_total{event="adopted"}'] == 6
    assert metrics['stillup_sessions_refused_total{why="unaware"}'] == 3
    assert metrics["stillup_session_bytes_total"] > 100
    service.cli("reload")
    gone(service, 3)
    crossing = service.status().crossing
    assert (crossing.sessions_given, crossing.sessions_adopted, crossing.sessions_refused) == (6, 6, 3)


def _metrics(service: SessionService) -> dict[str, float]:
    connection = connect(f"unix:{service.runtime}/control.sock")
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}
