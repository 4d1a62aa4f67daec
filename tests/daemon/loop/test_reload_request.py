"""A reload, whoever asks for it: what is wrong with the release is remembered, what is wrong with the time is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from stillup.core.events import Configured
from stillup.core.model import Fleet
from stillup.core.outcome_records import RefusedReload
from stillup.core.policy import Policy
from stillup.core.strategy import Strategy, StrategyKind
from stillup.core.strategy_choice import StrategyChoice
from stillup.daemon.loop.engine import Engine
from stillup.daemon.loop.reload_request import request_reload
from stillup.daemon.state.disk import Resolved
from stillup.errors import Refused, UsageError
from tests.asgi.event_loops import until
from tests.core.story import NEW, crashed, serving
from tests.daemon.example_engines import EFFECTS, engine_of

ACCEPTED: list[int] = []
"""The rollouts that were made of what was resolved."""


@asynccontextmanager
async def running(fleet: Fleet) -> AsyncIterator[Engine]:
    engine = engine_of(fleet)
    task = asyncio.ensure_future(engine.run(EFFECTS))
    try:
        yield engine
    finally:
        task.cancel()


async def new() -> Resolved:
    return Resolved(NEW, accepted=ACCEPTED.append)


async def gone() -> Resolved:
    raise Refused("the directory /srv is not there", code="release")


async def stuck() -> Resolved:
    raise Refused("no thread", code="unavailable")


async def test_a_release_that_is_not_there_is_remembered() -> None:
    """The caller is told as before; whoever looks at the service later finds it, too."""
    async with running(serving(1).fleet) as engine:
        with pytest.raises(Refused, match="not there"):
            await request_reload(engine, gone, "SIGHUP")
        await until(lambda: engine.fleet.refused)
        (refused,) = engine.fleet.refused
        assert refused == RefusedReload("SIGHUP", "release", "the directory /srv is not there", refused.at)


async def test_what_is_only_in_the_way_is_not() -> None:
    """It says nothing of the release."""
    async with running(serving(1).fleet) as engine:
        with pytest.raises(Refused, match="no thread"):
            await request_reload(engine, stuck, "test")
        ACCEPTED.clear()
        assert (await request_reload(engine, new, "test")).pending is not None
        assert (engine.fleet.refused, ACCEPTED) == ((), [2])


async def test_what_was_rolled_back_is_remembered_as_refused_and_can_be_forced() -> None:
    """By whoever insists."""
    async with running(crashed().fleet) as engine:
        with pytest.raises(Refused, match="rolled back before"):
            await request_reload(engine, new, "test")
        await until(lambda: engine.fleet.refused)
        assert engine.fleet.refused[0].code == "rolled-back-before"
        assert (await request_reload(engine, new, "test", force=True)).pending is not None


@pytest.mark.parametrize(
    ("choice", "comes"),
    [
        (StrategyChoice(), Strategy(StrategyKind.ROLLING, 2, 1)),
        (StrategyChoice(max_surge=3), Strategy(StrategyKind.ROLLING, 3, 1)),
        (StrategyChoice(StrategyKind.BLUE_GREEN), Strategy(StrategyKind.BLUE_GREEN, 2, 1)),
    ],
)
async def test_what_is_said_of_one_reload_goes_before_what_was_just_read(
    choice: StrategyChoice, comes: Strategy
) -> None:
    """The rest is as the file says now, and not as it was."""
    configured = Configured(Policy(strategy=Strategy(StrategyKind.ROLLING, 2, 1)))

    async def changed() -> Resolved:
        return Resolved(NEW, configured)

    async with running(serving(3).fleet) as engine:
        fleet = await request_reload(engine, changed, "test", choice=choice)
        assert fleet.rollouts[-1].strategy == comes


async def test_a_strategy_that_cannot_be_is_refused_and_not_remembered() -> None:
    """It was the caller's slip, and says nothing of the release."""
    async with running(serving(1).fleet) as engine:
        for choice in (StrategyChoice(max_surge=0), StrategyChoice(StrategyKind.ROLLING, 0, 1)):
            with pytest.raises(UsageError, match="max-surge"):
                await request_reload(engine, new, "test", choice=choice)
        assert (engine.fleet.refused, engine.fleet.pending) == ((), None)
