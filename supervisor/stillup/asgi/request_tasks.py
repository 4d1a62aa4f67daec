"""The tasks that run the app for requests, and how one is cut: cancelled in a way that nobody calls an error.

Uvicorn logs whatever an app raises as an error with its traceback, a cancellation of ours too, and what watches that
log (Sentry does) makes an alarm of it. A drain says in a line of its own what it has cut.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Container
from typing import Any

_BaseLogger = logging.LoggerAdapter  # generic to the type checker, not in Python 3.11's inheritance of it


class CutLogger(_BaseLogger):  # type: ignore[type-arg]
    """Uvicorn's logger of a request that was cut: what follows from that is told at DEBUG, all else as ever."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logger, {})

    @property
    def level(self) -> int:
        """Uvicorn asks it whether to trace."""
        return int(self.logger.level)

    def error(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log as an error, unless a cancellation is why, or that the app said no more after it."""
        given = kwargs.get("exc_info")
        error = given if isinstance(given, BaseException) else sys.exc_info()[1]
        level = logging.DEBUG if error is None or _cancelled(error) else logging.ERROR
        self.log(level, msg, *args, **kwargs)

    def exception(self, msg: object, *args: object, exc_info: Any = True, **kwargs: Any) -> None:
        self.error(msg, *args, exc_info=exc_info, **kwargs)


def _cancelled(error: BaseException) -> bool:
    """Whether a cancellation is what was raised, or what that came of."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        if isinstance(one, asyncio.CancelledError):
            return True
        seen.add(id(one))
        left += [one.__cause__, one.__context__, *(one.exceptions if isinstance(one, BaseExceptionGroup) else ())]
    return False


def owner(task: asyncio.Task[Any]) -> Any:
    """What a task runs the app for: uvicorn's object of an HTTP request, or a WebSocket's protocol; None: not known."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame.f_locals.get("self") if frame is not None else None


def is_background(task: asyncio.Task[Any], connections: Container[object]) -> bool:
    """Whether a task goes on though its answer is out, or its connection has gone."""
    one = owner(task)
    if one is None:
        return False
    if hasattr(one, "response_complete"):
        return bool(one.response_complete or one.disconnected)
    return one not in connections


def cut(task: asyncio.Task[Any]) -> None:
    """Cancel a task since its time is over."""
    one = owner(task)
    if one is not None and not isinstance(getattr(one, "logger", None), CutLogger | None):
        one.logger = CutLogger(one.logger)
    task.cancel("the drain's time is over")
