"""Coroutine tests."""

from __future__ import annotations

from tests.asgi.running import loop_factory, pytest_itemcollected, pytest_pyfunc_call

__all__ = ["loop_factory", "pytest_itemcollected", "pytest_pyfunc_call"]
