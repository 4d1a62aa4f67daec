"""How far and for how long a command watches something that goes on by itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final, TypeAlias

import click

from stillup.client.plain_output import echo

NO_LONGER_WATCHED: Final = 6
"""The exit code after --timeout: what was asked for goes on, and its outcome is not known."""

_Decorator: TypeAlias = Callable[[Callable[..., None]], Callable[..., None]]


def wait_option(*stages: str) -> _Decorator:
    """Give a command --wait, with these stages in their order."""
    probation = "probation: until they have come through --probation, too; " if "probation" in stages else ""
    return click.option(
        "--wait",
        type=click.Choice(stages),
        default="cut-over",
        show_default=True,
        help=f"How far to watch. cut-over: until the new workers serve; {probation}drained: until those that leave "
        "have left.",
    )


def timeout_option() -> _Decorator:
    """Give a command --timeout."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0.0),
        metavar="SECONDS",
        help="Stop watching after that time: exit 6, and what was asked for goes on.",
    )


class WatchLimit:
    """The time after which something is not watched any more, if there is one."""

    def __init__(self, timeout: float | None) -> None:
        """``timeout``: seconds from now; None for no end."""
        self._timeout = timeout
        self._ends = time.monotonic() + timeout if timeout is not None else None
        self._came = False

    def has_come(self) -> bool:
        """Whether that time has come; whoever asked stops watching then."""
        self._came = self._ends is not None and time.monotonic() >= self._ends
        return self._came

    def exit_if_it_came(self, goes_on: str) -> None:
        """Exit, if watching was stopped; ``goes_on``: what goes on, and where it can be seen."""
        if self._came:
            echo(f"not watching any more after {self._timeout:g} s; {goes_on}", err=True)
            sys.exit(NO_LONGER_WATCHED)
