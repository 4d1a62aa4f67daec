"""A wait for a place in a listener's backlog that is interrupted goes on."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from stillup.host.channel import connect_within
from tests.host.signals_meanwhile import signals_meanwhile

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture
def stack() -> contextlib.ExitStack:
    return contextlib.ExitStack()


def full(stack: contextlib.ExitStack, path: str) -> socket.socket:
    """A listener in whose backlog there is no place."""
    listener, first = (stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) for _ in range(2))
    listener.bind(path)
    listener.listen(0)
    first.connect(path)
    return listener


def test_it_is_connected_when_there_is_a_place(stack: contextlib.ExitStack, tmp_path: Path) -> None:
    """However often a signal comes; Python takes the interrupted connect(2) for one that is done (PEP 475)."""
    with stack:
        listener = full(stack, str(tmp_path / "s"))
        heard: list[None] = []

        def make_room() -> None:
            heard.append(None)
            if len(heard) == 3:
                stack.enter_context(listener.accept()[0])

        sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        with signals_meanwhile(make_room):
            connect_within(sock, str(tmp_path / "s"), 20.0)
        assert sock.send(b"x") == 1
        assert len(heard) >= 3


def test_the_time_is_that_of_all_attempts(stack: contextlib.ExitStack, tmp_path: Path) -> None:
    """A signal makes it no longer, and a place that never comes is none."""
    with stack:
        full(stack, str(tmp_path / "s"))
        sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        with signals_meanwhile(lambda: None), pytest.raises(BlockingIOError):
            connect_within(sock, str(tmp_path / "s"), 0.3)
