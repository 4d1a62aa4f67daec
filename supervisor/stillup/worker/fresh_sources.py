"""Hot reload and bytecode: the last save wins, also where Python's own check cannot tell it from the one before.

A ``.pyc`` is taken for its source by the second in which that was saved, and its size (PEP 3147, ``py_compile``). Two
saves of one size within a second are one to it: the second is served as the first was. So of sources that are watched:

1. One that was saved just now is compiled anew, and its bytecode is not kept: another save may follow in that second.
2. Bytecode that was written so soon after its source, by whoever it was, is no longer believed, and written anew.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import time
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from typing import Final

RACY: Final = 2.0
"""Seconds from the beginning of the second in which a source was saved: the rest of that, and what a clock that ticks
100 times a second and a slow write may add."""


def install(directories: Sequence[str]) -> None:
    """Have it so for the sources in these directories, by their real paths, in this process."""
    beginnings = tuple(f"{directory.rstrip('/')}/" for directory in directories)
    stats = SourceFileLoader.path_stats

    def path_stats(self: SourceFileLoader, path: str) -> dict[str, float]:
        found = dict(stats(self, path))
        if os.path.realpath(path).startswith(beginnings):
            settled = int(found["mtime"]) + RACY
            if time.time() < settled:
                raise OSError("saved just now")  # which importlib takes for "no bytecode, and none to be kept"
            _forget_racy(path, settled)
        return found

    SourceFileLoader.path_stats = path_stats  # type: ignore[method-assign]


def _forget_racy(source: str, settled: float) -> None:
    """Remove bytecode that was written before another save would have been told apart."""
    with contextlib.suppress(OSError, NotImplementedError):
        cached = importlib.util.cache_from_source(source)
        if os.stat(cached).st_mtime < settled:
            os.unlink(cached)
