"""Closes that take as long as somebody else likes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from stillup.host import blocking_close
from stillup.host.blocking_close import MOST, close_at_once, close_in_thread, close_socket_in_thread, hang_up
from tests.host.conftest import are_open_soon, open_descriptors
from tests.host.slow_sockets import slow_backlog, slow_to_close


@pytest.fixture
def interrupts() -> Iterator[None]:
    before = signal.getsignal(blocking_close.INTERRUPT)
    blocking_close.let_interrupt()
    yield
    signal.signal(blocking_close.INTERRUPT, before)


def test_nobody_waits_for_it(no_leak: None) -> None:
    """The setting of a socket that lingers is taken from it, so that it is closed at once, too."""
    with slow_to_close(inside=False) as slow:
        began = time.monotonic()
        close_socket_in_thread(slow)
        close_socket_in_thread(slow)
        assert (slow.fileno(), time.monotonic() - began < 5) == (-1, True)


def test_those_that_do_not_end_are_interrupted(interrupts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than there are threads: those behind them are closed all the same, as others come."""
    monkeypatch.setattr(blocking_close, "PATIENCE", 0.1)
    before = open_descriptors()
    with contextlib.ExitStack() as stack:
        for _ in range(MOST + 2):
            close_socket_in_thread(stack.enter_context(slow_to_close(inside=True)))
        there = time.monotonic()
        read, write = os.pipe()
        close_in_thread([read, write])
        while blocking_close._open and time.monotonic() - there < 10:
            close_in_thread([])
            time.sleep(0.02)
        assert time.monotonic() - there < 10
    assert are_open_soon(before)


def test_a_connection_is_hung_up_at_once(no_leak: None) -> None:
    """Its peer hears of it before it is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        hang_up(ours)
        assert theirs.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            theirs.send(b"x")
        hang_up(ours)


def test_a_unix_listener_with_somebody_in_its_backlog(no_leak: None) -> None:
    """Whoever may connect decides how long the close takes, and nobody waits for it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")
    listener.listen()
    with slow_backlog(listener):
        began = time.monotonic()
        close_at_once(listener)
        close_at_once(listener)
        assert (listener.fileno(), time.monotonic() - began < 15) == (-1, True)


def test_a_listener_that_is_no_unix_one_is_closed_at_once(no_leak: None) -> None:
    """Its address is free when that returns."""
    listener = socket.create_server(("127.0.0.1", 0))
    where = listener.getsockname()
    close_at_once(listener)
    close_at_once(listener)
    socket.create_server(where).close()
