"""Sealed memory: what was put there is read, and nobody can change it; anything else is told apart."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

import pytest

from stillup.errors import PeerError
from stillup.host import sealed_memory


@pytest.mark.parametrize("size", [0, 1, 9_000, 3_000_000])
def test_round_trip(size: int) -> None:
    """To the byte, more than once."""
    content = os.urandom(size)
    fd = sealed_memory.sealed(content)
    try:
        assert sealed_memory.read(fd, size) == sealed_memory.read(fd, size) == content
    finally:
        os.close(fd)


def test_nobody_can_change_it() -> None:
    """Neither what is in it, nor its size, nor its seals; and a child does not inherit it."""
    fd = sealed_memory.sealed(b"abc")
    try:
        for change in (
            lambda: os.pwrite(fd, b"x", 0),
            lambda: os.ftruncate(fd, 0),
            lambda: os.ftruncate(fd, 9),
            lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
        ):
            with pytest.raises(PermissionError):
                change()
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def _unsealed() -> int:
    fd = sealed_memory.create("test")
    os.write(fd, b"abc")
    return fd


def _still_to_be_written() -> int:
    fd = _unsealed()
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def _a_pipe() -> int:
    reader, writer = os.pipe()
    os.write(writer, b"abc")
    os.close(writer)
    return reader


def _to_be_written_alone() -> int:
    fd = sealed_memory.sealed(b"abc")
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "made",
    [_unsealed, _still_to_be_written, _a_pipe, lambda: sealed_memory.sealed(b"abcd"), _to_be_written_alone],
)
def test_anything_else(made: Callable[[], int]) -> None:
    """Memory that somebody could still change, of another size, that cannot be read, and what is none is not read."""
    fd = made()
    try:
        with pytest.raises(PeerError, match="a session: "):
            sealed_memory.read(fd, 3)
    finally:
        os.close(fd)
