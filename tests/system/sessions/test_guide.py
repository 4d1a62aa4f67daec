"""The recipes of the guide's chapter, each over reloads: with Starlette, sse-starlette, Litestar, and without any."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.system.clients import Peer
from tests.system.gated_service import reloaded
from tests.system.harness import Service
from tests.system.sessions.conftest import counts_on
from tests.system.sessions.websocket_peer import WebSocketPeer

pytestmark = pytest.mark.xdist_group("sessions")


def _recipe(words: str) -> str:
    """The one block of the guide that has these words."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/guide.md").read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if words in block)
    return str(found)


WEBSOCKETS = {
    "starlette": "import resume\n\n\nasync def count",
    "litestar": "from litestar import",
    "asgi": '"type": "websocket.handoff"',
}
ANSWERS = {"sse_starlette": "import ServerSentEvent", "litestar": "from litestar import"}


@pytest.mark.parametrize("framework", WEBSOCKETS)
def test_it_counts_on(framework: str, tmp_path: Path, stack: ExitStack) -> None:
    """The count goes on in the next generation, on the same connection."""
    words = WEBSOCKETS[framework]
    if framework == "litestar":
        pytest.importorskip(framework)
    service = Service(tmp_path, "main:app", "--ws", "auto")
    service.write(_recipe(words))
    stack.enter_context(service)
    peer = stack.enter_context(WebSocketPeer(service.address(), "/count"))
    counts_on(service, peer, "{}: a")


@pytest.mark.parametrize("framework", ANSWERS)
def test_it_is_told_to_its_end(framework: str, tmp_path: Path, stack: ExitStack) -> None:
    """Every tick comes once, from three generations, in one answer."""
    pytest.importorskip(framework)
    service = Service(tmp_path, "main:app")
    service.write(_recipe(ANSWERS[framework]))
    stack.enter_context(service)
    peer = stack.enter_context(Peer(service.address()))
    peer.send(b"GET /ticks HTTP/1.1\r\nHost: x\r\n\r\n")
    told = b""
    for number in (0, 30):
        told += peer.until(f"tick {number}".encode())
        reloaded(service)
    told += peer.until(b"\r\n0\r\n\r\n")
    assert [int(number) for number in re.findall(rb"tick (\d+)", told)] == list(range(100))
    assert service.status().crossing.sessions_adopted == 2
