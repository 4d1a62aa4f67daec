"""Coroutine tests, and the descriptors that a test must not leave open."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
import uvloop

from tests.asgi.running import loop_factory, pytest_itemcollected, pytest_pyfunc_call

__all__ = ["loop_factory", "no_leak", "pytest_itemcollected", "pytest_pyfunc_call"]


def open_descriptors() -> dict[int, str]:
    """The descriptors of our own process, and what each is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that listed them
            continue
    return found


@pytest.fixture(scope="session")
def first_loop() -> None:
    """Have a first uvloop behind us: libuv opens a pipe with it that it keeps for the whole process."""
    uvloop.new_event_loop().close()


@pytest.fixture
def no_leak(first_loop: None) -> Iterator[None]:
    """After the test exactly those descriptors are open that were open before it."""
    gc.collect()
    before = open_descriptors()
    yield
    assert open_descriptors() == before
