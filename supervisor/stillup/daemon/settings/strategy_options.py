"""The options of the strategy: how a new generation takes the place of the old one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from stillup.core.policy import MOST_WORKERS
from stillup.core.strategy import MOST_STANDBY, Strategy, StrategyKind, check
from stillup.daemon.settings import canary_options
from stillup.daemon.settings.canary_options import OF_CANARY

OF_STRATEGY: Final = ("strategy", "allow_strategy", "max_surge", "max_unavailable", *OF_CANARY, "standby")
"""The parameters' names."""


def parameters() -> list[click.Parameter]:
    """What the command line says of it."""
    return [
        click.Option(
            ["--strategy"],
            type=click.Choice([kind.value for kind in StrategyKind]),
            default=StrategyKind.BLUE_GREEN.value,
            show_default=True,
            help="How a new generation comes. blue-green: all its workers beside the old ones, then one cut-over. "
            "rolling: some at a time, where memory or database connections do not suffice for twice the workers; both "
            "releases answer meanwhile. canary: a few beside all the old ones at first; the rest only if these do as "
            "well as those.",
        ),
        click.Option(
            ["--allow-strategy"],
            type=click.Choice([kind.value for kind in StrategyKind]),
            multiple=True,
            help="What 'reload --strategy' may choose beside that; may be given several times. [default: all]",
        ),
        click.Option(
            ["--max-surge"],
            type=click.IntRange(0, MOST_WORKERS),
            metavar="N",
            default=1,
            show_default=True,
            help="Of rolling: as many workers more than --workers may live at once. 0: an old one has left before its "
            "replacement starts. With canary the rest comes so, if this or --max-unavailable is given.",
        ),
        click.Option(
            ["--max-unavailable"],
            type=click.IntRange(0, MOST_WORKERS),
            metavar="N",
            default=0,
            show_default=True,
            help="Of rolling: as many workers fewer than --workers may serve meanwhile; at least 1 with --max-surge 0.",
        ),
        *canary_options.parameters(),
        click.Option(
            ["--standby"],
            type=click.IntRange(0, MOST_STANDBY),
            metavar="SECONDS",
            default=0,
            show_default=True,
            help="Of blue-green: so long after a cut-over the old workers are kept, paused, and count in "
            "--max-draining. 'rollback', or a crash within --probation, has them serve again at once.",
        ),
    ]


def make_strategy(given: Mapping[str, Any], workers: int, *, is_bounded: bool = False) -> Strategy:
    """The strategy of so many workers; ``is_bounded``: whether any bound of rolling's was given.

    Raises:
        UsageError: it could never move.
    """
    kind = StrategyKind(given["strategy"])
    strategy = Strategy(
        kind,
        given["max_surge"],
        given["max_unavailable"],
        **canary_options.values_of(given),
        rolls=kind.watches and is_bounded,
        standby=given["standby"],
    )
    check(strategy, workers)
    return strategy


def never_surges(given: Mapping[str, Any]) -> bool:
    """Whether a rollout waits for each old worker to leave, and so for all that streams there."""
    return bool(given["strategy"] != StrategyKind.BLUE_GREEN and given["max_surge"] == 0)
