"""Streaming with sse-starlette: its streams end soon at a stop, and at a reload if the app says so as in the guide."""

from __future__ import annotations

import importlib.util
import re
import time
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.system.clients import Peer, request
from tests.system.harness import Service, eventually

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("sse_starlette") is None, reason="sse-starlette is not installed"),
    pytest.mark.xdist_group("sse-starlette"),
]

APP = """
from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.routing import Route

async def ticks():
    number = 0
    while True:
        number += 1
        yield {"data": str(number)}
        await asyncio.sleep(0.1)

app = Starlette(routes=[Route("/events", lambda request: EventSourceResponse(ticks()))])
"""
LONG = ("--stop-timeout", "100", "--drain-timeout", "100", "--drain-timeout-stream", "100")
SOON = 30.0
"""Seconds that are far from those, on any machine; sse-starlette looks twice a second."""


def _recipe() -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/guide.md").read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if "AppStatus" in block)
    return str(found)


def _stream(peer: Peer) -> None:
    peer.send(request("/events"))
    peer.until(b"data: 1\r\n")


def _ends(peer: Peer) -> None:
    """Read on until the server ends the stream."""
    eventually(peer.ends, "the stream ends", deadline=SOON)


def test_a_stop_and_a_reload(tmp_path: Path) -> None:
    """As it is: a stream outlasts a reload, in its old worker, and ends at a stop long before its time is over."""
    service = Service(tmp_path, "main:app", *LONG)
    service.tracebacks_expected = True  # sse-starlette's cancellation, as under uvicorn
    service.write("import asyncio\n" + APP)
    with service, Peer(service.address()) as peer:
        _stream(peer)
        service.client.reload()
        assert service.generations() == [1, 2]
        assert peer.until(b"data: 30\r\n"), "3 s, and so several looks of sse-starlette's, after it began"
        began = time.monotonic()
        service.process.terminate()
        _ends(peer)
        assert service.process.wait(SOON) == 0
        assert time.monotonic() - began < SOON


def test_the_recipe(tmp_path: Path) -> None:
    """With the guide's lines streams end at a reload, and the old worker leaves; those of the new one go on."""
    service = Service(tmp_path, "main:app", *LONG)
    service.tracebacks_expected = True
    service.write(f"{_recipe()}\n{APP}\napp.add_middleware(EndStreams)\n")
    with service, Peer(service.address()) as peer:
        _stream(peer)
        began = time.monotonic()
        service.client.reload(wait="drained")
        _ends(peer)
        assert time.monotonic() - began < SOON
        assert service.generations() == [2]
        with Peer(service.address()) as other:
            _stream(other)
            assert other.until(b"data: 20\r\n")
