"""Coroutine tests, and the descriptors that a test must not leave open."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator

import pytest
import uvloop

from stillup.host import blocking_close
from tests.asgi.event_loops import loop_factory, pytest_itemcollected, pytest_pyfunc_call

__all__ = ["loop_factory", "no_leak", "pytest_itemcollected", "pytest_pyfunc_call"]

DEADLINE = 20.0


def none_is_closing() -> None:
    """Wait until what is closed in threads is closed: what an earlier test has left to them is not to be counted."""
    ends = time.monotonic() + DEADLINE
    while blocking_close._open and time.monotonic() < ends:
        time.sleep(0.005)


def open_descriptors() -> dict[int, str]:
    """The descriptors of our own process, and what each is."""
    none_is_closing()
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that listed them
            continue
    return found


def are_open_soon(those: dict[int, str]) -> bool:
    """Whether those are open, and no others: some are closed in a thread."""
    ends = time.monotonic() + DEADLINE
    while (found := open_descriptors()) != those and time.monotonic() < ends:
        time.sleep(0.005)
    return found == those


@pytest.fixture(scope="session")
def first_loop() -> None:
    """Have a first uvloop behind us: libuv opens a pipe with it that it keeps for the whole process."""
    uvloop.new_event_loop().close()


@pytest.fixture
def no_leak(first_loop: None) -> Iterator[None]:
    """Soon after the test exactly those descriptors are open that were open before it."""
    gc.collect()  # what earlier tests have left
    gc.freeze()  # and what they have not is not looked at again: that took a tenth of a second each time
    before = open_descriptors()
    yield
    assert are_open_soon(before)
