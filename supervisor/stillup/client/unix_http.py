"""HTTP connections to a control socket, for the standard library's client; one to that of a runtime directory here.

Who answers may mean ill: to that client interim answers (100), a body that trickles or a trailer have no end.
"""

from __future__ import annotations

import abc
import contextlib
import http.client
import socket
import time
from typing import Any, Final

from stillup.client import runtime_place
from stillup.errors import StillupError

MOST_HEAD: Final = 256 * 1024
"""Bytes until an answer's body is read, with what comes before its head."""
MOST_ANSWER: Final = 32 << 20
"""Bytes of the rest: many times what any of a supervisor's comes to."""


class EndlessError(http.client.HTTPException):
    """An answer has more bytes than it may have."""


class LimitedSocket(socket.socket):
    """Is waited on for so long in all, and read so many bytes from; None for any time, and any number."""

    seconds_left: float | None = None
    bytes_left: int | None = MOST_HEAD

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As a socket's.

        Raises:
            TimeoutError: nothing is left of the time.
            EndlessError: nothing is left of the bytes.
        """
        if self.seconds_left is not None and self.seconds_left <= 0:
            raise TimeoutError
        self.settimeout(self.seconds_left)
        began = time.monotonic()
        count = super().recv_into(buffer, nbytes, flags)
        if self.seconds_left is not None:
            self.seconds_left -= time.monotonic() - began
        if self.bytes_left is not None:
            self.bytes_left -= count
            if self.bytes_left < 0:
                raise EndlessError
        return count

    def limit(self, seconds: float | None) -> None:
        """Begin anew: so many seconds, and the bytes of one answer."""
        self.seconds_left, self.bytes_left = seconds, MOST_HEAD
        self.settimeout(seconds)

    def unlimited(self) -> None:
        """Let it last as long as the other end has something to say."""
        self.seconds_left = self.bytes_left = None
        self.settimeout(None)


class ControlConnection(http.client.HTTPConnection, abc.ABC):
    """A connection to a supervisor; ``timeout``: seconds of waiting in all, None for any time."""

    sock: LimitedSocket

    def __init__(self, timeout: float | None) -> None:
        super().__init__("localhost")
        self._seconds = timeout

    @abc.abstractmethod
    def reach(self, seconds: float | None) -> socket.socket:
        """A socket at whose other end the supervisor is, there within so many seconds; the caller's.

        Raises:
            NotRunningError: it is somebody else, or could be.
            OSError: nobody is there, or not for us.
        """

    def connect(self) -> None:
        """Connect; raises as ``reach`` does."""
        self.sock = LimitedSocket(fileno=self.reach(self._seconds).detach())
        self.sock.limit(self._seconds)

    def hang_up(self) -> None:
        """Close it for good. Not ``close``, which the standard library's client calls with an answer yet to be read."""
        self.close()

    def release(self) -> None:
        """The answer was read to its end: what comes next needs no connection of its own, if this can be used again."""
        self.hang_up()

    def objection(self) -> StillupError | None:
        """Why the other end has hung up without an answer, if what is on the way there says so."""
        return None

    def wait_for_its_end(self) -> None:
        """Wait until the other end hangs up, however long that takes."""
        if self.sock is None:  # the answer has said so
            return
        self.sock.settimeout(None)
        with contextlib.suppress(ConnectionResetError):
            self.sock.recv(1)


class UnixHttpConnection(ControlConnection):
    """A connection to the supervisor in ``directory``."""

    def __init__(self, directory: str, timeout: float | None) -> None:
        super().__init__(timeout)
        self._directory = directory

    def reach(self, seconds: float | None) -> socket.socket:
        """As there: the supervisor's user is who listens in the directory."""
        with runtime_place.visit(self._directory) as place:
            return place.connect(seconds)
