"""Whether the app is called for a session that goes on here: code before its accept runs once at each worker."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

RESUMING: Final = ContextVar("stillup_resuming", default=False)
"""True in the task of an app that is called for a WebSocket which the worker before had, before its first line."""
