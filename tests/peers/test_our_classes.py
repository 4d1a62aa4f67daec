"""The plugin has our classes serve in uvicorn's own server: a request and a WebSocket, by each of uvicorn's parsers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.peers.__main__ import PLUGINS

SERVES = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import our_classes
import uvicorn
from websockets.asyncio.client import connect

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": type(scope["extensions"]).__name__})
    await receive()

async def main():
    config = uvicorn.Config(app, http=sys.argv[2], ws=sys.argv[3], lifespan="off", port=0, log_level="warning")
    server = uvicorn.Server(config)
    serves = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\\r\\nHost: here\\r\\nConnection: close\\r\\n\\r\\n")
    body = (await reader.read()).rpartition(b"\\r\\n\\r\\n")[2].decode()
    writer.close()
    async with connect(f"ws://127.0.0.1:{port}/") as socket:
        print(body, await socket.recv())
    print(config.ws_protocol_class.__mro__[1].__module__.partition(".")[0])
    server.should_exit = True
    await serves

asyncio.run(asyncio.wait_for(main(), 20))
"""


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("websockets", ["websockets-sansio", "wsproto"])
def test_they_serve(http: str, websockets: str) -> None:
    """What they lack there of a worker's is made up for."""
    argv = [sys.executable, "-c", SERVES, str(PLUGINS), http, websockets]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "ok dict\nstillup\n"), done.stderr
