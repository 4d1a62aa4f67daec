"""Coroutine tests."""

from __future__ import annotations

from tests.asgi.event_loops import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]
