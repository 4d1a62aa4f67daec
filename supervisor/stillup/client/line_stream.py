"""An answer that comes line by line, for as long as the supervisor has something to say."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from stillup.client.client_errors import NotRunningError, TimedOutError
from stillup.client.unix_http import ControlConnection
from stillup.errors import PeerError

T = TypeVar("T")

LONGEST_LINE: Final = 4 << 20
"""Bytes; no event and no traced message has as many."""
_PIECE: Final = 64 * 1024
"""Bytes that are read at a time."""


class Stream(Iterator[T], Generic[T]):
    """What a supervisor says until it ends, or until this is closed: use it in ``with``.

    Raises NotRunningError when the supervisor has gone without ending it, PeerError for a line that makes no sense,
    TimedOutError for an answer that is to have an end and takes too long.
    """

    def __init__(
        self,
        connection: ControlConnection,
        response: http.client.HTTPResponse,
        decode: Callable[[bytes], T],
    ) -> None:
        """Take the connection over; each line of the response is to be decoded."""
        self._connection = connection
        self._response = response
        self._decode = decode
        self._rest = b""

    def __next__(self) -> T:
        # Not readline(), to which a stream that was cut off between two chunks is one that has ended.
        while b"\n" not in self._rest:
            try:
                piece = self._response.read1(_PIECE)
            except TimeoutError as error:
                self.close()
                raise TimedOutError("the supervisor did not say all in time") from error
            except (http.client.HTTPException, OSError) as error:
                self.close()
                raise NotRunningError(f"the supervisor has hung up ({type(error).__name__})") from error
            if not piece:
                self.close()
                raise StopIteration
            self._rest += piece
            if len(self._rest) > LONGEST_LINE:
                self.close()
                raise PeerError("the supervisor says a line that has no end")
        line, _, self._rest = self._rest.partition(b"\n")
        return self._decode(line)

    def close(self) -> None:
        """Hang up."""
        self._response.close()
        self._connection.hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
