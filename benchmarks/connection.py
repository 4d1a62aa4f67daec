"""One HTTP/1.1 connection over a bare socket.

No transport and no connection pool stands between: a transport drops an answer that a
reset follows, and a pool repeats a lost request. Both would hide what the server did.
"""

import asyncio
import errno
import ipaddress
import re
import socket
import time
from dataclasses import dataclass, field
from typing import Literal, Self

Phase = Literal["connect", "send", "wait", "answer"]

# What a server can do instead of answering, as far as it is more than one status or errno.
REFUSED = "refused"
RESET = "reset"
CLOSED = "closed"
UNASKED = "bytes that nobody asked for"
NO_LENGTH = "no usable length"
MALFORMED_CHUNK = "malformed chunk"
ENDLESS_LINE = "endless line"

_READ = 65536
_LINE_LIMIT = 65536
_UNIX_RETRY = 0.005
_SHOWN = 300  # bytes of an answer that says what went wrong
_STATUS_LINE = re.compile(r"HTTP/1\.1 (\d{3})(?: [^\r\n]*)?")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;.*)?")


class NoAnswer(Exception):
    """The request got no whole answer of status 200; the text says what came instead."""


@dataclass(frozen=True)
class Target:
    """Where the server listens: an IP address and port, or a unix socket."""

    family: socket.AddressFamily
    address: tuple[str, int] | str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `127.0.0.1:8000`, `[::1]:8000`, `unix:/path` or `unix:@abstract`.

        A host name is refused: it can stand for several listeners.
        """
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            return cls(socket.AF_UNIX, "\0" + path[1:] if path.startswith("@") else path)
        host, _, port = text.rpartition(":")
        ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
        return cls(family, (str(ip), int(port)))

    def __str__(self) -> str:
        if isinstance(self.address, str):
            return "unix:" + self.address.replace("\0", "@", 1)
        host, port = self.address
        return f"[{host}]:{port}" if self.family == socket.AF_INET6 else f"{host}:{port}"


@dataclass(frozen=True)
class Answer:
    """A whole answer of status 200, with the header names in lower case."""

    body: bytes
    headers: dict[str, str]

    @property
    def closes(self) -> bool:
        """Whether the server said that this connection ends here."""
        return self.headers.get("connection", "").lower() == "close"


@dataclass
class Connection:
    """A connection to the target; `phase` is how far the newest request has come.

    `opened` counts how often the target accepted: a client that was never left has 1. Of the connection that
    was opened last, `port` is our own end's, 0 where there is none, as on a unix socket, and `since` is when it began
    (time.monotonic).
    """

    target: Target
    phase: Phase = "connect"
    opened: int = 0
    port: int = 0
    since: float = 0.0
    _sock: socket.socket | None = None
    _buffer: bytearray = field(default_factory=bytearray)
    _watched: bool = False
    _waiter: asyncio.Future[bytes] | None = None

    async def open(self) -> bool:
        """Connect, unless that has been done; tells whether it connected."""
        if self._sock is not None:
            return False
        self.phase = "connect"
        self.port, self.since = 0, time.monotonic()
        self._sock = socket.socket(self.target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await self._connect(self._sock)
        except OSError as error:
            raise NoAnswer(_reason(error)) from error
        self.opened += 1
        if self.target.family != socket.AF_UNIX:
            self.port = self._sock.getsockname()[1]
        return True

    async def _connect(self, sock: socket.socket) -> None:
        if self.target.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(sock, self.target.address)
            return
        while True:
            try:
                sock.connect(self.target.address)
            except BlockingIOError:
                # A full unix backlog does not queue the caller but answers EAGAIN, which
                # sock_connect() would take for a connection under way.
                await asyncio.sleep(_UNIX_RETRY)
            else:
                return

    async def send(self, data: bytes) -> None:
        """Write a part of a request."""
        self.phase = "send"
        if self._buffer:
            raise NoAnswer(UNASKED)
        try:
            await asyncio.get_running_loop().sock_sendall(self._open_socket(), data)
        except OSError as error:
            raise NoAnswer(_reason(error)) from error

    async def answer(self) -> Answer:
        """Read one answer to its last byte."""
        return (await self.answers(1))[0]

    async def answers(self, count: int) -> list[Answer]:
        """Read the answers to `count` requests that were sent without waiting, in their order."""
        self.phase = "wait"
        answers = [await self._answer() for _ in range(count)]
        if self._buffer:
            raise NoAnswer(UNASKED)
        return answers

    async def _answer(self) -> Answer:
        status, headers = await self._head()
        while 100 <= status < 200:
            status, headers = await self._head()
        body = await self._body(headers)
        if status != 200:
            raise NoAnswer(f"status {status}: {body[:_SHOWN].decode(errors='replace')}")
        return Answer(body, headers)

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return await self._chunks()
        if re.fullmatch(r"\d{1,12}", length := headers.get("content-length", "")):
            return await self._take(int(length))
        # An answer that only a close ends looks the same whole and cut off.
        raise NoAnswer(NO_LENGTH)

    def ended_by_server(self) -> bool:
        """Whether the server has closed this connection, asked while it is idle."""
        if self._sock is None:
            return False
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self._buffer += data
        return not data

    def rest(self) -> None:
        """Let the event loop forget this connection until the next answer, if there are thousands of them."""
        self._unwatch()

    def close(self) -> None:
        """Close the socket, if it was opened; the object can then open() a new one."""
        if self._sock is not None:
            self._unwatch()
            self._sock.close()
        self._sock = None
        self._buffer.clear()

    async def _head(self) -> tuple[int, dict[str, str]]:
        lines = (await self._take_line(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = _STATUS_LINE.fullmatch(lines[0])
        if status is None:
            raise NoAnswer(f"not HTTP/1.1: {lines[0][:40]!r}")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise NoAnswer(f"not a header: {line[:40]!r}")
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return int(status[1]), headers

    async def _chunks(self) -> bytes:
        body = bytearray()
        while True:
            size = _CHUNK_SIZE.fullmatch(await self._take_line(b"\r\n"))
            if size is None:
                raise NoAnswer(MALFORMED_CHUNK)
            if not int(size[1], 16):
                break
            body += await self._take(int(size[1], 16))
            if await self._take(2) != b"\r\n":
                raise NoAnswer(MALFORMED_CHUNK)
        while await self._take_line(b"\r\n"):
            pass  # Trailer fields carry nothing that is checked.
        return bytes(body)

    async def _take_line(self, end: bytes) -> bytes:
        """Take the bytes before `end`, and drop `end`."""
        while (size := self._buffer.find(end)) < 0:
            if len(self._buffer) > _LINE_LIMIT:
                raise NoAnswer(ENDLESS_LINE)
            await self._fill()
        line = await self._take(size)
        del self._buffer[: len(end)]
        return line

    async def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._fill()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def _fill(self) -> None:
        """Wait for something to read, and read it.

        The socket stays with the event loop from one answer to the next. sock_recv() would try in vain, add it
        and remove it, for each: three system calls more, on the cores of the server that is measured.
        """
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        if not self._watched:
            loop.add_reader(self._open_socket(), self._ready)
            self._watched = True
        try:
            data = await self._waiter
        except OSError as error:
            raise NoAnswer(_reason(error)) from error
        finally:
            self._waiter = None
        if not data:
            raise NoAnswer(CLOSED)
        self.phase = "answer"
        self._buffer += data

    def _ready(self) -> None:
        if self._waiter is None:
            # The end, or bytes that nobody waits for yet. Whoever uses the connection next will read them;
            # until then the loop would call here without a pause.
            self._unwatch()
        elif not self._waiter.done():
            # Read here: what is still unread when the loop looks again would be taken for the case above.
            try:
                self._waiter.set_result(self._open_socket().recv(_READ))
            except BlockingIOError:
                pass
            except OSError as error:
                self._waiter.set_exception(error)

    def _unwatch(self) -> None:
        if self._watched:
            asyncio.get_running_loop().remove_reader(self._open_socket())
            self._watched = False

    def _open_socket(self) -> socket.socket:
        assert self._sock is not None, "open() comes first"
        return self._sock


def _reason(error: OSError) -> str:
    match error:
        case ConnectionRefusedError():
            return REFUSED
        case ConnectionResetError():
            return RESET
        case BrokenPipeError():
            return CLOSED
    return errno.errorcode.get(error.errno or 0, str(error))
