"""A client of a WebSocket that says each byte as it is told to, and keeps the one connection."""

from __future__ import annotations

import base64
import os
import struct
import threading
import zlib
from dataclasses import dataclass

from tests.system.clients import Peer

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def frame(opcode: int, data: bytes, *, fin: bool = True, compressed: bool = False) -> bytes:
    """A masked frame (RFC 6455, section 5.2)."""
    head = bytes([fin << 7 | compressed << 6 | opcode])
    size = len(data)
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 2**16:
        head += bytes([0x80 | 126]) + struct.pack("!H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", size)
    mask = os.urandom(4)
    masks = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return head + mask + (int.from_bytes(data, "big") ^ masks).to_bytes(size, "big")


@dataclass(frozen=True)
class Reply:
    """What the echo says: who, the how-manieth it was, and the text."""

    generation: int
    pid: int
    count: int
    text: str

    @classmethod
    def parse(cls, said: str) -> Reply:
        generation, pid, count, text = (*said.split(" ", 3), "")[:4]
        return cls(int(generation), int(pid), int(count), text)


class Closed(Exception):
    """The server sent a close frame where a text was expected."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code


class WebSocketPeer(Peer):
    """One WebSocket, from its handshake on."""

    def __init__(self, address: str, path: str = "/echo", *, deflate: int = 0, chat: bool = False) -> None:
        """Shake hands.

        Args:
            address: a listener's.
            path: the route.
            deflate: the bits of the window that the client's own compression may have, 9 to 15; 0: there is none.
            chat: whether that subprotocol is offered.
        """
        super().__init__(address)
        self._writing = threading.Lock()
        lines = [f"GET {path} HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}", "Sec-WebSocket-Version: 13"]
        if deflate:
            lines.append(f"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits={deflate}")
        if chat:
            lines.append("Sec-WebSocket-Protocol: chat")
        self.send("\r\n".join([*lines, "", ""]).encode())
        self.head = self.until(b"\r\n\r\n").decode()
        assert self.head.startswith("HTTP/1.1 101"), self.head
        # Of the server's answer: it may ask for less than it was offered.
        bits = self.head.partition("client_max_window_bits=")[2][:2].strip("; \r\n") or str(deflate or 15)
        self._deflate = zlib.compressobj(wbits=-int(bits)) if "permessage-deflate" in self.head else None
        self._inflate = zlib.decompressobj(wbits=-15)

    def send(self, data: bytes) -> None:
        """Send whole frames, or the parts of one that nothing comes between."""
        with self._writing:
            super().send(data)

    def text(self, said: str) -> bytes:
        """The frame of a text."""
        if self._deflate is None:
            return frame(TEXT, said.encode())
        data = self._deflate.compress(said.encode()) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return frame(TEXT, data[:-4], compressed=True)

    def receive(self) -> tuple[int, bytes]:
        """Take one whole frame that is no ping: its opcode, and what was in it. Pings are answered."""
        while (got := self._frame())[0] == PING:
            self.send(frame(PONG, got[1]))
        return got

    def _frame(self) -> tuple[int, bytes]:
        first, size = self._take(2)
        if size == 126:
            (size,) = struct.unpack("!H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._take(8))
        data = self._take(size)
        if first & 0x40:
            data = self._inflate.decompress(data + b"\0\0\xff\xff")
        return first & 15, data

    def receive_text(self) -> str:
        """Take a text.

        Raises:
            Closed: the server closed instead.
            Ended: the connection ended.
        """
        opcode, data = self.receive()
        if opcode == CLOSE:
            raise Closed(struct.unpack("!H", data[:2])[0], data[2:].decode())
        assert opcode == TEXT, (opcode, data)
        return data.decode()

    def ask(self, said: str) -> Reply:
        """Say a text, and take the reply to it."""
        self.send(self.text(said))
        return self.reply()

    def reply(self) -> Reply:
        return Reply.parse(self.receive_text())

    def close(self, code: int = 1000) -> None:
        """Send the close frame."""
        self.send(frame(CLOSE, struct.pack("!H", code)))

    def close_code(self) -> int:
        """Take what comes until the server's close frame; its code."""
        while True:
            opcode, data = self.receive()
            if opcode == CLOSE:
                return int(struct.unpack("!H", data[:2])[0])
