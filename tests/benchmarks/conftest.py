"""Coroutine tests."""

from __future__ import annotations

from tests.asgi.running import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]
