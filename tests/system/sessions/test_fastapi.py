"""FastAPI: what it injects is made again with the request; what must not happen twice does not."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.clients import Peer, request
from tests.system.gated_service import reloaded
from tests.system.harness import Service
from tests.system.sessions.conftest import counts_on
from tests.system.sessions.websocket_peer import WebSocketPeer

pytestmark = pytest.mark.xdist_group("sessions")

APP = """
import asyncio, os, pathlib, sys
from typing import Annotated
from fastapi import Depends, FastAPI, Request, WebSocket, WebSocketException
from pydantic import BaseModel
from starlette.requests import HTTPConnection
from stillup.app import Resumable, current, resume

def note(file):
    with pathlib.Path(file).open("a") as lines:
        print(os.environ["STILLUP_GENERATION"], file=lines)

async def user(connection: HTTPConnection):
    note("asked")
    if not current().resuming:
        note("charged")
    return connection.query_params["user"]

User = Annotated[str, Depends(user)]

class Prompt(BaseModel):
    words: list[str]

app = FastAPI()

@app.websocket("/count")
async def count(websocket: WebSocket, user: User):
    session = await resume(websocket, {"count": 0})
    async for text in session.iter_text():
        session.state["count"] += 1
        await session.send_text(f"{user} {session.state['count']}: {text}")

@app.post("/tokens")
async def tokens(request: Request, prompt: Prompt, user: User):
    async def stream(start: int):
        last = start + 10 if os.environ["STILLUP_GENERATION"] == "3" else sys.maxsize
        for number in range(start, last):
            await asyncio.sleep(0.05)
            yield f"{user} {prompt.words[number % len(prompt.words)]} {number}\\n", number + 1
    return Resumable(request, stream, 0, media_type="text/plain")
"""


@pytest.fixture
def service(tmp_path: Path, stack: ExitStack) -> Service:
    service = Service(tmp_path, "main:app", "--ws", "auto")
    service.write(APP)
    return stack.enter_context(service)


def noted(service: Service, file: str) -> list[str]:
    return (service.folder / file).read_text().split()


def test_a_websocket_counts_on(service: Service, stack: ExitStack) -> None:
    """Its dependency is asked in each generation, and has charged once."""
    peer = stack.enter_context(WebSocketPeer(service.address(), "/count?user=ann"))
    counts_on(service, peer, "ann {}: a")
    assert (noted(service, "asked"), noted(service, "charged")) == (["1", "2", "3", "4"], ["1"])


def test_a_stream_goes_on_with_its_body(service: Service, stack: ExitStack) -> None:
    """A POST whose body is a model: every token comes once, from three generations; the third one's are the last."""
    body = b'{"words": ["lorem", "ipsum"]}'
    headers = "Content-Type: application/json", f"Content-Length: {len(body)}"
    peer = stack.enter_context(Peer(service.address()))
    peer.send(request("/tokens?user=bob", *headers, method="POST") + body)
    told = b""
    for number in (0, 20):
        told += peer.until(f" {number}\n".encode())
        reloaded(service)
    told += peer.until(b"\r\n0\r\n\r\n")
    tokens = re.findall(r"bob \w+ \d+", told.decode())
    assert tokens == [f"bob {'ipsum' if number % 2 else 'lorem'} {number}" for number in range(len(tokens))]
    assert len(tokens) > 20
    assert (noted(service, "asked"), noted(service, "charged")) == (["1", "2", "3"], ["1"])
