"""Closing a connection so that what was written arrives.

close() with unread input makes the kernel send a reset, which may destroy an answer that is still on its way (RFC 9112
section 9.6). So: shut down writing, read and drop what still comes until the client closes, and only then close.
Always: that the request was read to its end does not help, since the client's next one may be on its way already.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Any, Final

from supervisor.wire.figures import Cells

LINGER: Final = 5.0
"""Seconds that a client has to close its side, once everything is written."""
CAP: Final = 16 * 1024 * 1024
"""Bytes that are read and dropped meanwhile."""


class LingeringTransport(asyncio.Transport):
    """The transport that a protocol sees. Bytes don't pass through it: only close() is different.

    A protocol may say in a method ``said_last`` that its client will send nothing more; then nobody lingers for it.
    """

    # Not the protocol: it holds this one, and neither is to be left to the garbage collector.
    __slots__ = ("_inner", "_socket", "cells", "is_closing", "write")

    def __init__(self, inner: asyncio.Transport, sock: socket.socket, cells: Cells | None = None) -> None:
        """``cells`` is where what comes on this connection is counted."""
        # The base class has nothing to do.
        self._inner = inner
        self._socket = sock
        self.cells = cells
        # What every request uses is taken over, the rest asked for below.
        self.write = inner.write  # type: ignore[method-assign]
        self.is_closing = inner.is_closing  # type: ignore[method-assign]

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        # The connection's own: uvloop has a stand-in, which makes a new socket object for each question.
        return self._socket if name == "socket" else self._inner.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._inner.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._inner.get_protocol()

    def close(self) -> None:
        inner = self._inner
        if self.is_closing():
            return
        self.is_closing = _true  # type: ignore[method-assign]
        protocol = inner.get_protocol()
        said_last = getattr(protocol, "said_last", None)
        if (said_last is not None and said_last()) or not inner.can_write_eof():  # TLS says goodbye in its own way
            inner.close()
            return
        # A protocol may still write after its close(); asyncio drops that, but not after the write_eof() below.
        self.write = _drop  # type: ignore[assignment]
        inner.set_protocol(_Discard(inner, protocol))
        try:
            inner.write_eof()
            inner.resume_reading()
        except OSError:  # the client has reset the connection: nobody is left to linger for
            inner.abort()

    def abort(self) -> None:
        self.is_closing = _true  # type: ignore[method-assign]
        self._inner.abort()

    def can_write_eof(self) -> bool:
        return self._inner.can_write_eof()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._inner.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        return self._inner.get_write_buffer_size()

    def is_reading(self) -> bool:
        return self._inner.is_reading()

    def pause_reading(self) -> None:
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        self._inner.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._inner.set_write_buffer_limits(high, low)

    def write_eof(self) -> None:
        self._inner.write_eof()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))


def _drop(_: object) -> None:
    """Write nothing."""


def _true() -> bool:
    return True


class _Discard(asyncio.Protocol):
    """Reads and drops until the client closes, the time is over or the cap is reached; then tells the protocol."""

    def __init__(self, transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> None:
        self._transport = transport
        self._protocol: Any = protocol
        self._left = CAP
        self._flushed = not transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(LINGER, self._late)

    def _late(self) -> None:
        """End the wait, unless the answer itself is still being sent: the client's time begins when all is written."""
        if self._flushed:
            self._transport.abort()
            return
        self._flushed = not self._transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(LINGER, self._late)

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._transport.abort()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._protocol.connection_lost(exc)
