"""How a worker's failure is told: what the supervisor and the kernel say of it, apart from what the app says.

What an app says may be anything, and not everybody who looks at the service is to read it.
"""

from __future__ import annotations

from typing import Final

from stillup.core.model import Failure
from stillup.core.states import GATE, INCONCLUSIVE

_SAID_BY_US: Final = frozenset(
    {"spawn", "hello", "boot", "accept", "channel", "exit", "hook", "hang", GATE, INCONCLUSIVE}
)
"""Stages of a failure whose message is ours, or the kernel's. In any other the app may have put its own into it."""


def described(failure: Failure) -> str:
    """Which worker failed and how, without a word of the app's."""
    process = f" (pid {failure.pid})" if failure.pid is not None else ""
    who = f"{failure.worker}{process} " if failure.worker else ""
    return f"{who}{failure.message if failure.stage in _SAID_BY_US else f'failed ({failure.stage})'}"


def said_by_app(failure: Failure) -> str:
    """What the app may have said of it; empty if it has said nothing."""
    return "" if failure.stage in _SAID_BY_US else failure.message
