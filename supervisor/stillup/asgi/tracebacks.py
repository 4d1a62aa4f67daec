"""Showing the app's own errors to the app's own people."""

from __future__ import annotations

import asyncio
import importlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uvicorn

from stillup.wire.plain_text import escaped_lines

STILLUP: Final = Path(__file__).parents[1]
MACHINERY: Final = (
    "<frozen importlib",
    *(f"{STILLUP / room}/" for room in ("asgi", "daemon", "worker")),
    *(f"{folder}/" for package in (importlib, uvicorn) for folder in package.__path__),
)
"""How the names of files begin whose frames are not the app's."""
LOOP: Final = f"{Path(asyncio.__file__).parent}/"
"""How the names of files begin whose frames are asyncio's."""
MOST_TASKS: Final = 8
MOST_FRAMES: Final = 20
"""Of each task, the innermost ones."""
MOST_DEPTH: Final = 200
"""Coroutines that wait for each other, from the outermost."""
_BETWEEN: Final = (
    "\nThe above exception was the direct cause of the following exception:\n\n",
    "\nDuring handling of the above exception, another exception occurred:\n\n",
)
"""What ``traceback`` says between two exceptions."""


def show_error(error: BaseException) -> None:
    """Print a traceback of the app's own code."""
    sys.stderr.write(shown_error(error))
    sys.stderr.flush()


def shown_error(error: BaseException) -> str:
    """A traceback of the app's own code: what stillup, uvicorn and the import system add is left out.

    Controls in it are shown: the app's people read it on a terminal, and what an exception says is often a client's.
    """
    shown = traceback.TracebackException.from_exception(error)
    seen: set[int] = set()
    part: traceback.TracebackException | None = shown
    while part is not None and id(part) not in seen:
        seen.add(id(part))
        own = [frame for frame in part.stack if not _machinery(frame.filename)]
        if own or hasattr(part, "lineno"):  # of a SyntaxError, which names its place itself
            part.stack = traceback.StackSummary.from_list(own)
        part = part.__cause__ or part.__context__
    return "".join(_told(piece) for piece in shown.format())


def show_waits() -> None:
    """Print where the app's tasks wait, of MOST_TASKS of them: what a dump of the threads does not show.

    To be called by the event loop. One that waits for what stillup or uvicorn is to give it is not shown.
    """
    shown = 0
    for task in asyncio.all_tasks():
        stack = traceback.StackSummary.extract(_suspended(task.get_coro()), lookup_lines=False)
        above = [frame for frame in stack if not frame.filename.startswith(LOOP)]
        own = [
            frame for frame in above if not _machinery(frame.filename) and not frame.filename.startswith(f"{STILLUP}/")
        ]
        if own and own[-1] is above[-1] and shown < MOST_TASKS:
            shown += 1
            told = traceback.StackSummary.from_list(own[-MOST_FRAMES:]).format()
            sys.stderr.write(escaped_lines(f"A task of the app waits here (most recent call last):\n{''.join(told)}"))
    sys.stderr.flush()


def _suspended(waits: Any) -> Iterator[tuple[FrameType, int]]:
    """The frames and lines at which a coroutine is suspended, the outermost first."""
    for _ in range(MOST_DEPTH):
        kind = next((kind for kind in ("cr", "gi", "ag") if getattr(waits, f"{kind}_frame", None) is not None), "")
        if not kind:
            return
        frame = getattr(waits, f"{kind}_frame")
        yield frame, frame.f_lineno
        waits = getattr(waits, f"{kind}_yieldfrom" if kind == "gi" else f"{kind}_await")


def _told(piece: str) -> str:
    """A piece of a traceback, without a line that the text of an exception has begun."""
    if piece in _BETWEEN:
        return piece
    first, *more = piece.removesuffix("\n").split("\n")
    told = [first, *(line if line.startswith(" ") else f"    {line}" for line in more)]
    return escaped_lines("\n".join(told)) + "\n"


def _machinery(filename: str) -> bool:
    return filename.startswith(MACHINERY)
