"""A client that holds on to one connection and sees all that becomes of it."""

from __future__ import annotations

import select
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.system.harness import open_socket


def request(path: str = "/", *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


class Ended(Exception):
    """The connection ended where an answer, or more of it, was expected."""


@dataclass(frozen=True)
class Answer:
    """One whole answer; the headers' names in lower case."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"

    @property
    def generation(self) -> int:
        """Who gave it, of those that say ``GENERATION.WORKER PID``."""
        return int(self.body.partition(".")[0])

    @property
    def pid(self) -> int:
        return int(self.body.split()[1])


class Peer:
    """One connection, from first to last: it never connects again."""

    def __init__(self, address: str, sock: socket.socket | None = None) -> None:
        self.sock = sock or open_socket(address)
        self._read = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def get(self, path: str = "/", *headers: str) -> Answer:
        """Ask and be answered."""
        self.send(request(path, *headers))
        return self.answer()

    def answer(self) -> Answer:
        """Take one answer, to its last byte.

        Raises:
            Ended: it did not come, or not all of it.
        """
        head = self.until(b"\r\n\r\n").decode()
        status, *lines = head[:-4].split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.until(b"\r\n"), 16):
                body += self._take(size + 2)[:-2]
            self._take(2)
        else:
            body = self._take(int(headers.get("content-length", "0")))
        return Answer(int(status.split()[1]), headers, body.decode())

    def until(self, end: bytes) -> bytes:
        """Take all up to the next ``end``, and that."""
        while end not in self._read:
            self._fill()
        return self._take(self._read.index(end) + len(end))

    def ends(self) -> bool:
        """Wait until the server closes; False if it says something instead."""
        try:
            self._fill()
        except Ended:
            return True
        return False

    def is_open(self) -> bool:
        """Whether the connection is there, and the server has said nothing on it that was not taken."""
        # Not MSG_DONTWAIT: a socket with a timeout waits in spite of it.
        return not self._read and not select.select([self.sock], [], [], 0)[0]

    def _take(self, size: int) -> bytes:
        while len(self._read) < size:
            self._fill()
        taken = bytes(self._read[:size])
        del self._read[:size]
        return taken

    def _fill(self) -> None:
        try:
            data = self.sock.recv(65536)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise Ended(f"reset after {self._read!r}") from error
        if not data:
            raise Ended(f"closed after {self._read!r}")
        self._read += data
