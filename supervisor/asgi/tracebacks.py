"""Showing the app's own errors to the app's own people."""

from __future__ import annotations

import sys
import traceback


def show_error(error: BaseException) -> None:
    """Print a traceback of the app's own code: what stillup, uvicorn and the import system add is left out."""
    shown = traceback.TracebackException.from_exception(error)
    seen: set[int] = set()
    part: traceback.TracebackException | None = shown
    while part is not None and id(part) not in seen:
        seen.add(id(part))
        own = [frame for frame in part.stack if not _machinery(frame.filename)]
        if own or part.exc_type is SyntaxError:  # which names its place itself
            part.stack = traceback.StackSummary.from_list(own)
        part = part.__cause__ or part.__context__
    sys.stderr.write("".join(shown.format()))
    sys.stderr.flush()


def _machinery(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or any(
        part in filename
        for part in ("/supervisor/worker/", "/supervisor/daemon/", "/supervisor/asgi/", "/uvicorn/", "/importlib/")
    )
