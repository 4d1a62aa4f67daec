"""Directories to which a worker's user can write: anything may be there, and nothing of it is waited for."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.host.config_file import MOST, read_again
from stillup.host.fingerprint import fingerprint

NAMES = st.sampled_from(
    [b"main.py", b"a.so", b".hidden", b"__pycache__", b"\xff.py", b"x" * 200 + b".py", b"\x1b[2J.py"]
)
KINDS = st.sampled_from(["file", "directory", "fifo", "socket", "loop", "out", "dangling", "sparse", "closed"])
TREES = st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3), KINDS), max_size=8)


def put(path: bytes, kind: str, outside: str) -> None:
    """Put something of that kind there."""
    match kind:
        case "file" | "closed":
            with open(path, "xb") as file:
                file.write(os.path.basename(path))
            os.chmod(path, 0o644 if kind == "file" else 0)
        case "directory":
            os.mkdir(path)
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(path)
        case "sparse":
            with open(path, "xb") as file:
                file.truncate(1 << 40)
        case _:
            os.symlink({"loop": ".", "out": outside, "dangling": "nothing"}[kind], os.fsdecode(path))


def fill(directory: str, tree: list[tuple[list[bytes], str]], outside: str) -> None:
    """Make what can be made of a tree."""
    for names, kind in tree:
        with contextlib.suppress(OSError):
            folder = os.path.join(os.fsencode(directory), *names[:-1])
            os.makedirs(folder, exist_ok=True)
            put(os.path.join(folder, names[-1]), kind, outside)


@pytest.mark.usefixtures("no_leak")
@given(TREES)
def test_whatever_is_in_a_release(tree: list[tuple[list[bytes], str]]) -> None:
    """It is looked at to its end, reads the same twice, and nothing that a link leads to counts."""
    with TemporaryDirectory() as directory, TemporaryDirectory() as outside:
        fill(directory, tree, outside)
        seen = fingerprint(directory)
        Path(outside, "more.py").touch()
        assert fingerprint(directory) == seen


@pytest.mark.usefixtures("no_leak")
@given(TREES)
def test_whatever_is_where_a_configuration_was(tree: list[tuple[list[bytes], str]]) -> None:
    """It is read at once, or an error; what is no regular file is never read, and no more than MOST of one that is."""
    with TemporaryDirectory() as directory, TemporaryDirectory() as outside:
        fill(directory, tree, outside)
        for names, _ in tree:
            path = os.path.join(directory, *map(os.fsdecode, names))
            try:
                text, hazard = read_again(path)
            except (OSError, UnicodeDecodeError):
                continue
            assert os.path.isfile(path) or hazard
            assert len(text) <= MOST
