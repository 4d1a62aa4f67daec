"""What both kinds of sessions have in common: what an app hands over, and whether it is called to go on with it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final

from stillup.wire.session_format import STATE_LIMIT

RESUMING: Final = ContextVar("stillup_resuming", default=False)
"""True in the task of an app that is called for a session which the worker before had, before its first line."""


def state_of(message: Any) -> bytes:
    """What an app leaves to the next one.

    Raises:
        TypeError: it is not bytes.
        ValueError: it is larger than may travel.
    """
    state = message.get("state", b"")
    if not isinstance(state, bytes):
        raise TypeError(f"'{message['type']}': state is {type(state).__name__}, not bytes")
    if len(state) > STATE_LIMIT:
        raise ValueError(f"'{message['type']}': {len(state)} bytes of state; at most {STATE_LIMIT} may travel")
    return state
