"""The bounds are watched by what could see them broken."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.processes import until
from tests.system import mutations
from tests.system.harness import sample
from tests.system.mutations import Mutation, mutated
from tests.system.rolling.conftest import SURGES
from tests.system.rolling.rolling_service import PATIENCE, RollingService, under_load


@pytest.mark.parametrize(
    ("change", "found"),
    sample(
        [
            pytest.param(mutations.STARTS_ONE_TOO_MANY, "5 live", id="starts-one-too-many"),
            pytest.param(mutations.RETIRES_TOO_SOON, "accept of", id="retires-too-soon"),
        ]
    ),
)
def test_a_broken_plan_is_found_out(tmp_path: Path, change: Mutation, found: str) -> None:
    """The same reload that is sound otherwise, at a step where it stands still: a boot may be too short to be seen."""

    async def run(service: RollingService) -> None:
        async with under_load(service) as roll:
            await roll.reload_to(1)
            await until(lambda: bool(roll.watch.broken), PATIENCE, "the watch sees it")
            roll.go_on()
            await roll.settled(outcome="succeeded")
            await roll.stays(roll.new)

    path = mutated(tmp_path, change)["PYTHONPATH"]
    with RollingService(tmp_path, SURGES, path=path) as service, pytest.raises(AssertionError, match=found):
        asyncio.run(run(service))
