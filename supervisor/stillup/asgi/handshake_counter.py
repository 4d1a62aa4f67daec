"""The handshake of a WebSocket counts as a request does, when it is answered: accepted, refused, or failed."""

from __future__ import annotations

from collections.abc import Awaitable
from time import perf_counter_ns
from typing import Any, Final

from stillup.asgi.request_counters import count_answer
from stillup.asgi.resumption import RESUMING
from stillup.wire.figure_cells import Cells

_ACCEPTED: Final = 1
_REFUSED: Final = 4
_FAILED: Final = 5


class Handshake:
    """One, from when its app is called."""

    def __init__(self, cells: Cells | None) -> None:
        """``cells`` is where it is counted; None of what goes on from another worker, and was counted there."""
        self._cells = cells
        self._began = perf_counter_ns()

    def note(self, message: Any) -> None:
        """Count it if that answers it."""
        match message["type"]:
            case "websocket.accept":
                self._count(_ACCEPTED)
            case "websocket.close":
                self._count(_REFUSED)
            case "websocket.http.response.start":
                self._count(message["status"] // 100)

    def end(self) -> None:
        """Its app has returned: uvicorn says so to a client that is still there."""
        self._count(_FAILED)

    def _count(self, hundreds: int) -> None:
        if self._cells is not None:
            count_answer(self._cells, hundreds, self._began)
            self._cells = None


class CountingApp:
    """An app whose handshakes are counted; a class that counts by itself calls ``app``."""

    def __init__(self, app: Any, cells: Cells) -> None:
        """``cells`` is where they are counted."""
        self.app = app
        self.cells = cells

    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        # One that goes on was counted where it began.
        begins = scope["type"] == "websocket" and not RESUMING.get()
        return (self._handshake if begins else self.app)(scope, receive, send)

    async def _handshake(self, scope: Any, receive: Any, send: Any) -> None:
        handshake = Handshake(self.cells)

        def noted(message: Any) -> Awaitable[None]:
            handshake.note(message)
            sent: Awaitable[None] = send(message)
            return sent

        try:
            await self.app(scope, receive, noted)
        finally:
            handshake.end()
