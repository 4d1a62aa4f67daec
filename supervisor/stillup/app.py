"""What an application imports of stillup: ``from stillup.app import current``.

What is for apps of Starlette and FastAPI is imported with the first look at it, so that others don't import Starlette.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from stillup.worker.app_state import Draining, Leader, Stillup, Told, current

if TYPE_CHECKING:
    from stillup.worker.resumable_answer import Resumable
    from stillup.worker.resumable_websocket import HandedOver, ResumableWebSocket, resume

__all__ = [
    "Draining",
    "HandedOver",
    "Leader",
    "Resumable",
    "ResumableWebSocket",
    "Stillup",
    "Told",
    "current",
    "resume",
]

_OF_STARLETTE: Final = {
    "HandedOver": "resumable_websocket",
    "Resumable": "resumable_answer",
    "ResumableWebSocket": "resumable_websocket",
    "resume": "resumable_websocket",
}
"""And the module that has it."""


def __getattr__(name: str) -> object:
    """Import what needs Starlette (PEP 562)."""
    if name not in _OF_STARLETTE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"stillup.worker.{_OF_STARLETTE[name]}"), name)
