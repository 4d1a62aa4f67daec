"""The recipes of the guide's chapter, each over a reload: with Starlette, and without a framework."""

from __future__ import annotations

import re
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.system.gated_service import reloaded
from tests.system.harness import Service, eventually
from tests.system.sessions.websocket_peer import WebSocketPeer

pytestmark = pytest.mark.xdist_group("sessions")


def _recipe(words: str) -> str:
    """The one block of the guide that has these words."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/guide.md").read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if words in block)
    return str(found)


@pytest.mark.parametrize("words", ["import resume", '"type": "websocket.handoff"'], ids=["starlette", "asgi"])
def test_it_counts_on(words: str, tmp_path: Path, stack: ExitStack) -> None:
    """The count goes on in the next generation, on the same connection."""
    service = Service(tmp_path, "main:app", "--ws", "auto")
    service.write(_recipe(words))
    stack.enter_context(service)
    peer = stack.enter_context(WebSocketPeer(service.address(), "/count"))
    for number in range(1, 4):
        peer.send(peer.text("a"))
        assert peer.receive_text() == f"{number}: a"
        reloaded(service)
        eventually(partial(_adopted, service, number), "its new worker says that it has it")


def _adopted(service: Service, number: int) -> bool:
    return service.status().crossing.sessions_adopted == number
