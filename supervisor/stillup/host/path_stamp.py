"""What tells one state of a file, or of the files in a directory, from another: without reading any of them."""

from __future__ import annotations

import os
from itertools import islice
from typing import Final

Stamp = tuple[tuple[str, str, int, int, int, int], ...]
"""Of each file its name, where that leads, device, inode, size in bytes, and when it was written in ns (stat(2))."""

MOST_ENTRIES: Final = 10_000
"""Files of a directory that are looked at; a volume that Kubernetes makes of a ConfigMap has tens."""


def stamp(path: str) -> Stamp:
    """That of a file, or of what is directly in a directory; empty if there is nothing that can be looked at.

    Links are followed, and where they lead is part of it: in a volume of Kubernetes every name leads through
    ``..data``, which is replaced, and the files of before and after may be alike in all else. Blocks as long as the
    disk does.
    """
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in islice(entries, MOST_ENTRIES))
    except NotADirectoryError:
        return _of(path, "")
    except OSError:
        return ()
    return tuple(one for name in names for one in _of(os.path.join(path, name), name))


def _of(path: str, name: str) -> Stamp:
    try:
        seen = os.stat(path)
        return ((name, os.path.realpath(path), seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns),)
    except OSError:  # it leads nowhere, or has just been removed
        return ()
