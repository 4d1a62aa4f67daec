"""What the code in a directory looks like, without reading it: names, sizes and times of change."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import os
from typing import Final

SUFFIXES: Final = (".py", ".so")
"""Code; what an app writes while it runs (databases, uploads, logs) changes no release."""
MOST: Final = 50_000
"""Entries that are looked at, in a fixed order: a release is not a whole disk."""
READ: Final = 500_000
"""Entries of one directory that are read, to find the first ones: who may write there can make any number of them."""


def fingerprint(directory: str) -> str:
    """The same text as long as no file of code below the directory has been changed, added or removed.

    Hidden directories and bytecode are passed over, and no symlink is followed. Blocks: up to MOST entries are looked
    at. What cannot be read counts as absent, as it does for Python's import.
    """
    digest = hashlib.blake2b(digest_size=16)
    left = MOST
    waiting = [directory]
    while waiting and left > 0:
        path = waiting.pop()
        entries = _entries(path, left)
        left -= len(entries)
        for entry in entries:
            if _is_directory(entry):
                if not entry.name.startswith(".") and entry.name != "__pycache__":
                    waiting.append(entry.path)
            elif entry.name.endswith(SUFFIXES):
                digest.update(_looks(entry, directory))
    return digest.hexdigest()


def _entries(path: str, most: int) -> list[os.DirEntry[str]]:
    """The first of them by name; of a directory with more than READ, of those that the kernel names first."""
    try:
        with os.scandir(path) as found:
            return heapq.nsmallest(most, itertools.islice(found, READ), key=lambda entry: entry.name)
    except OSError:
        return []


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # the file system tells only when it is asked again, and then fails (readdir(3): DT_UNKNOWN)
        return False


def _looks(entry: os.DirEntry[str], directory: str) -> bytes:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return b""
    return f"{os.path.relpath(entry.path, directory)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(
        errors="surrogateescape"
    )
