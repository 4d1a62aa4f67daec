"""How a WebSocket ends: with the code that uvicorn gives it, which its client sees."""

from __future__ import annotations

import asyncio
import importlib

import pytest
from uvicorn.config import WS_PROTOCOLS
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from tests.asgi.event_loops import until
from tests.asgi.served_app import serving, skip_without_websockets

pytestmark = pytest.mark.usefixtures("loop_factory")

MOST = 2**20


@pytest.fixture(params=["websockets-sansio", "wsproto"])
def ws(request: pytest.FixtureRequest) -> str:
    """Both of uvicorn's implementations that decide themselves how a WebSocket ends."""
    name: str = request.param
    pytest.importorskip(name.partition("-")[0])
    skip_without_websockets(name)
    module = importlib.import_module(str(WS_PROTOCOLS[name]).partition(":")[0])
    if name == "wsproto" and not hasattr(module, "FrameTooLargeError"):
        pytest.skip("this uvicorn limits no message there")
    return name


@pytest.mark.parametrize("times", [1, 12])
async def test_too_large_a_message(ws: str, times: int) -> None:
    """Its client is told 1009, and leaves in peace, however much of the message is still on its way."""
    async with serving(http="httptools", ws=ws, ws_max_size=MOST) as served:
        host, port = served.address
        async with connect(f"ws://{host}:{port}/", max_size=None, compression=None) as client:
            with pytest.raises(ConnectionClosedError) as closed:
                await asyncio.gather(client.recv(), client.send(b"x" * (times * MOST + 1)))
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
        await until(lambda: not served.site.connections)


async def test_shut_down_while_it_ends(ws: str) -> None:
    """One whose handshake was refused, and that waits for its client to close, is not told a second time."""
    async with serving(http="httptools", ws=ws) as served:
        client = await served.connect()
        await client.ask("/", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")  # without a key
        assert (await client.read_to(b"\r\n")).startswith(b"HTTP/1.1 4")
        assert served.kinds == [None]
        served.connection.shutdown()
        assert b"HTTP/1.1" not in await client.rest()
        client.close()
        await until(lambda: not served.site.connections)
