"""A raw ASGI app that hands its WebSockets over, and a client that says exactly what it is told."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from tests.asgi.served_app import HEAD_END, App, Client, Served

GET = "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"


class SessionApp(App):
    """Echoes what it is sent, after its name and a number that it hands over."""

    def __init__(self, name: str = "old", *, subprotocol: str | None = None) -> None:
        super().__init__()
        self.name = name
        self.subprotocol = subprotocol
        self.sizes: Iterator[int] = itertools.repeat(0)
        """Of the states that it leaves, in bytes, at least."""
        self.told: list[str] = []
        """What it has received that was no message."""

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        offered = scope["extensions"].get("websocket.handoff", {})
        count = int(offered.get("state", b"0")[-20:])
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept", "handoff": True, "subprotocol": self.subprotocol})
        while True:
            message = await receive()
            match message["type"]:
                case "websocket.receive":
                    count += 1
                    said = message.get("text")
                    if said is None:
                        await send({"type": "websocket.send", "bytes": message["bytes"]})
                    else:
                        await send({"type": "websocket.send", "text": f"{self.name} {count} {said}"})
                case "websocket.handoff":
                    self.told.append("handoff")
                    await send(
                        {"type": "websocket.handoff", "state": str(count).encode().rjust(next(self.sizes), b"0")}
                    )
                    return
                case _:
                    self.told.append(f"{message['type']} {message['code']}")
                    return


def frame(opcode: int, data: bytes, *, fin: bool = True, rsv1: bool = False) -> bytes:
    """A frame of a client's (RFC 6455, 5.2)."""
    mask, size = os.urandom(4), len(data)
    head = bytes([(0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += b"\xfe" + struct.pack("!H", size)
    else:
        head += b"\xff" + struct.pack("!Q", size)
    key = int.from_bytes((mask * (size // 4 + 1))[:size])
    return head + mask + (int.from_bytes(data) ^ key).to_bytes(size)


class Peer:
    """A WebSocket client to the byte."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._compress: Any = None
        self._inflate: Any = None
        self._read = b""

    @classmethod
    async def dial(cls, served: Served, *headers: str, deflate: str = "", path: str = "/") -> Peer:
        """Connect and shake hands; ``deflate`` is what is asked for of permessage-deflate."""
        peer = cls(await served.connect())
        key = base64.b64encode(os.urandom(16)).decode()
        extension = [f"Sec-WebSocket-Extensions: {deflate}"] if deflate else []
        await peer.client.ask(path, *GET, f"Sec-WebSocket-Key: {key}", *extension, *headers)
        head = (await peer.client.read_to(HEAD_END)).decode()
        assert head.startswith("HTTP/1.1 101 "), head
        if deflate:
            bits = 12 if "client_max_window_bits=12" in head else 15
            peer._compress = zlib.compressobj(wbits=-bits)
            peer._inflate = zlib.decompressobj(wbits=-15)
        return peer

    @property
    def deflates(self) -> bool:
        """Whether what it says is compressed."""
        return self._compress is not None

    def text(self, text: str) -> bytes:
        """A whole message."""
        if not self.deflates:
            return frame(1, text.encode())
        return frame(1, self.compressed(text.encode()), rsv1=True)

    def compressed(self, data: bytes) -> bytes:
        """The payload of a compressed message (RFC 7692, 7.2.1)."""
        packed: bytes = self._compress.compress(data) + self._compress.flush(zlib.Z_SYNC_FLUSH)
        return packed[:-4]

    async def send(self, data: bytes) -> None:
        await self.client.send(data)

    async def _exactly(self, count: int) -> bytes:
        loop = asyncio.get_running_loop()
        while len(self._read) < count:
            data = self.client._read or await loop.sock_recv(self.client.sock, 65536)
            self.client._read = b""
            assert data, f"the connection ended after {self._read!r}"
            self._read += data
        taken, self._read = self._read[:count], self._read[count:]
        return taken

    async def frame(self) -> tuple[int, bytes]:
        """The next frame's opcode and what it says."""
        first, size = await self._exactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._exactly(8))
        data = await self._exactly(size)
        if first & 0x40:
            data = self._inflate.decompress(data + b"\x00\x00\xff\xff")
        return first & 15, data

    async def hear(self) -> str:
        """The next message, which is text."""
        opcode, data = await self.frame()
        assert opcode == 1, (opcode, data)
        return data.decode()

    async def say(self, text: str) -> str:
        """Send a message, and what comes back."""
        await self.send(self.text(text))
        return await self.hear()

    async def code(self) -> int:
        """The code of the close frame that comes next."""
        opcode, data = await self.frame()
        assert opcode == 8, (opcode, data)
        return int.from_bytes(data[:2])
