"""The options of the strategy canary: how many workers are watched, for how long, and what they are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from stillup.core.strategy import Strategy
from stillup.core.strategy_choice import canary_of

OF_CANARY: Final = (
    *("canary", "canary_time", "canary_timeout"),
    *("min_requests", "max_error_rate", "max_latency_ratio", "no_gate"),
)
"""The parameters' names."""
_DEFAULT: Final = Strategy()


def parameters() -> list[click.Parameter]:
    """What the command line says of it."""
    return [
        click.Option(
            ["--canary"],
            metavar="N|N%",
            default=str(_DEFAULT.canary),
            show_default=True,
            help="Of canary: so many new workers come at first, or that part of --workers, rounded up.",
        ),
        click.Option(
            ["--canary-time"],
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            default=_DEFAULT.canary_time,
            show_default=True,
            help="Of canary: seconds for which they are compared with the old workers before the rest comes.",
        ),
        click.Option(
            ["--canary-timeout"],
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="Of canary: if it cannot be told by then how they do, they leave again (inconclusive). "
            f"[default: {_DEFAULT.canary_timeout:g}, or --canary-time if that is longer]",
        ),
        click.Option(
            ["--min-requests"],
            type=click.IntRange(1),
            metavar="N",
            default=_DEFAULT.min_requests,
            show_default=True,
            help="Of canary: so many requests the new and the old workers have to have answered each.",
        ),
        click.Option(
            ["--max-error-rate"],
            type=click.FloatRange(0, 100),
            metavar="POINTS",
            default=_DEFAULT.max_error_rate,
            show_default=True,
            help="Of canary: of a hundred requests so many more than of the old workers' may be answered with a 5xx.",
        ),
        click.Option(
            ["--max-latency-ratio"],
            type=click.FloatRange(1),
            metavar="TIMES",
            default=_DEFAULT.max_latency_ratio,
            show_default=True,
            help="Of canary: the new workers' p99 may be so many times that of the old ones.",
        ),
        click.Option(
            ["--no-gate"],
            is_flag=True,
            help="Of canary: do not compare; whoever lives through --canary-time has passed.",
        ),
    ]


def values_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``Strategy`` that these say.

    Raises:
        UsageError: ``--canary`` is neither a number nor a part.
    """
    canary, percent = canary_of(str(given["canary"]))
    timeout = given["canary_timeout"]
    return {
        **{name: given[name] for name in OF_CANARY if name not in ("canary", "canary_timeout", "no_gate")},
        "canary": canary,
        "canary_percent": percent,
        "canary_timeout": timeout if timeout is not None else max(_DEFAULT.canary_timeout, given["canary_time"]),
        "gated": not given["no_gate"],
    }
