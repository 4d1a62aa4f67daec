"""The transport that a protocol sees: it closes so that what was written arrives, and writes an answer in one piece.

Closing: close() with unread input makes the kernel send a reset, which may destroy an answer that is still on its way
(RFC 9112 section 9.6). So: shut down writing, read and drop what still comes until the client closes, and only then
close; but no longer than there is a reason: once the kernel of a client that owes nothing (no half request, no close
frame) has acknowledged all that was written, and nothing lies unread here, nothing can be destroyed any more. That a
request was read to its end is no such reason by itself: the client's next one may be on its way already.

Writing: uvicorn writes an answer's head, then its body. Each write(2) is a packet and costs more than all that is done
here for a request, so a head waits for its body, but no longer than until the loop's turn is over.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, Final

from stillup.host.socket_queues import is_settled
from stillup.wire.figure_cells import Cells

LINGER: Final = 5.0
"""Seconds that a client has to close its side, once everything is written."""
LOOKS: Final = (0.0, 0.01, 0.04, 0.1, 0.2, 0.5)
"""Seconds until it is asked again whether all that was written has arrived; the last one for ever."""
CAP: Final = 16 * 1024 * 1024
"""Bytes that are read and dropped meanwhile."""
QUIET: Final = 0.1
"""Seconds without a byte after which a client that was cut short has said all that it was about to say."""
LARGE: Final = 16 * 1024
"""Bytes of a body that is not joined to its head: copying it would cost more than another write(2)."""


class WriteBatch:
    """Those whose writes wait until the loop's turn is over. One for all transports of a loop, so that it is cheap."""

    def __init__(self) -> None:
        self._waiting: list[LingeringCloseTransport] = []

    def wait(self, transport: LingeringCloseTransport) -> None:
        """Flush a transport in the loop's next turn."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._over)
        self._waiting.append(transport)

    def _over(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport in waiting:
            transport.flush()


class LingeringCloseTransport(asyncio.Transport):
    """The transport that a protocol sees. Bytes don't pass through it but for those of answers that are joined.

    A protocol may say in a method ``said_last`` that its client will send nothing more; then nobody lingers for it. And
    in ``cuts_short`` that its client is in the middle of a message: writing is shut down once that is out, since
    asyncio's transport for clients breaks where its peer does so while it has something to send (websockets'
    ``close()`` raises AttributeError then). Without ``owes``, or where it says so, the client is in the middle of
    something, and is lingered for.
    """

    # Not the protocol: it holds this one, and neither is to be left to the garbage collector.
    __slots__ = ("_batch", "_inner", "_kept", "_socket", "_straight", "cells", "is_closing", "write")
    # What every message of a WebSocket uses: no call of a function here stands between.
    pause_reading: Any = property(attrgetter("_inner.pause_reading"))
    resume_reading: Any = property(attrgetter("_inner.resume_reading"))

    def __init__(self, inner: asyncio.Transport, sock: socket.socket, batch: WriteBatch, cells: Cells) -> None:
        """``cells`` is where what comes on this connection is counted."""
        # The base class has nothing to do.
        self._inner = inner
        self._socket = sock
        self._batch = batch
        self._kept: Any = b""
        self.cells = cells
        # What every request uses is taken over, the rest asked for below.
        self.write = self._straight = inner.write  # type: ignore[method-assign]
        self.is_closing = inner.is_closing  # type: ignore[method-assign]

    def join(self) -> None:
        """Keep what is written next, until more is written or the loop's turn is over: they leave together."""
        if self.write is self._straight:  # else it is closed, or keeps something already
            self.write = self._keep  # type: ignore[method-assign]

    def _keep(self, data: bytes | bytearray | memoryview) -> None:
        kept = self._kept
        if not kept:
            self._kept = data
            self._batch.wait(self)
        elif len(data) > LARGE:
            self.flush()
            self.write(data)
        else:
            joined = kept + data
            self._kept = b""
            self.write = self._straight  # type: ignore[method-assign]
            self._straight(joined)

    def flush(self) -> None:
        """Write what is kept."""
        kept, self._kept = self._kept, b""
        if self.write == self._keep:
            self.write = self._straight  # type: ignore[method-assign]
        if kept and not self.is_closing():
            self._straight(kept)

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
        self.flush()
        self.is_closing = _true  # type: ignore[method-assign]
        protocol = inner.get_protocol()
        said_last = getattr(protocol, "said_last", None)
        if said_last is not None and said_last():
            inner.close()
            return
        owes = getattr(protocol, "owes", None)
        owed = owes is None or owes()
        if not inner.can_write_eof():  # TLS says goodbye in its own way
            inner.close()
            if not owed:
                _Settling(inner, self._socket)
            return
        # A protocol may still write after its close(); asyncio drops that, but not after the write_eof() below.
        self.write = _drop  # type: ignore[assignment]
        cuts_short = getattr(protocol, "cuts_short", None)
        discard = _Discard(inner, protocol)
        inner.set_protocol(discard)
        try:
            if cuts_short is not None and cuts_short():
                discard.wait_until_quiet()
            else:
                inner.write_eof()
            inner.resume_reading()
        except OSError:  # the client has reset the connection: nobody is left to linger for
            inner.abort()
            return
        if not owed:
            discard.settling = _Settling(inner, self._socket)

    def abort(self) -> None:
        self.is_closing = _true  # type: ignore[method-assign]
        self._inner.abort()

    def can_write_eof(self) -> bool:
        return self._inner.can_write_eof()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._inner.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        return self._inner.get_write_buffer_size() + len(self._kept)

    def is_reading(self) -> bool:
        return self._inner.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._inner.set_write_buffer_limits(high, low)

    def write_eof(self) -> None:
        self.flush()
        self._inner.write_eof()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))


def _drop(_: object) -> None:
    """Write nothing."""


def _true() -> bool:
    return True


class _Settling:
    """Closes a transport as soon as all that was written has arrived, and nothing has come since."""

    def __init__(self, transport: asyncio.Transport, sock: socket.socket) -> None:
        self._transport = transport
        self._socket = sock
        self._looks = iter(LOOKS)
        self._timer = asyncio.get_running_loop().call_later(next(self._looks), self._look)

    def _look(self) -> None:
        if self._socket.fileno() < 0:
            return
        if not self._transport.get_write_buffer_size() and is_settled(self._socket):
            self._transport.abort()  # of a transport that has nothing left to write: close(2), no reset
            return
        self._timer = asyncio.get_running_loop().call_later(next(self._looks, LOOKS[-1]), self._look)

    def stop(self) -> None:
        self._timer.cancel()


class _Discard(asyncio.Protocol):
    """Reads and drops until the client closes, the time is over or the cap is reached; then tells the protocol."""

    settling: _Settling | None = None

    def __init__(self, transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> None:
        self._transport = transport
        self._protocol: Any = protocol
        self._left = CAP
        self._flushed = not transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(LINGER, self._late)
        self._heard = False
        """Whether anything has come since the last look."""
        self._look: asyncio.TimerHandle | None = None

    def wait_until_quiet(self) -> None:
        """Shut down writing once nothing has come for QUIET seconds."""
        self._heard = False
        self._look = asyncio.get_running_loop().call_later(QUIET, self._perhaps_quiet)

    def _perhaps_quiet(self) -> None:
        if self._heard:
            self.wait_until_quiet()
            return
        self._look = None
        try:
            self._transport.write_eof()
        except OSError:  # the client has reset the connection
            self._transport.abort()

    def _late(self) -> None:
        """End the wait, unless the answer itself is still being sent: the client's time begins when all is written."""
        if self._flushed:
            self._transport.abort()
            return
        self._flushed = not self._transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(LINGER, self._late)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._left -= len(data)
        if self._left < 0:
            self._transport.abort()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        if self._look is not None:
            self._look.cancel()
        if self.settling is not None:
            self.settling.stop()
        self._protocol.connection_lost(exc)
