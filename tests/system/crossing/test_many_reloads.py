"""Reloads in a row under load, each asked for at the cut-over of the one before."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks.control import Control
from benchmarks.drop import SOON, demand_nothing_lost
from benchmarks.load import MIXED, Load, Pace, Report, Target
from tests.system.harness import DEADLINE, FULL, ROOT, Service

RELOADS = 100 if FULL else 4
BRISK = replace(
    MIXED,
    stream=0,  # endless answers are hurried when a reload has to wait for older generations
    think=0.05 if FULL else 0.15,
    pace=Pace(slow=0.1, upload=0.1, stream=0.1, early=0.05, silence=0.3),
)


def test_many_reloads_in_a_row(tmp_path: Path, stack: ExitStack) -> None:
    """Many reloads, each asked for at the cut-over of the one before, under load: nobody can tell.

    At no time are there more generations than two that drain, one that serves and one that boots.
    """
    options = ("--app-dir", str(ROOT), "--no-access-log", "--health-path", "/healthz")
    service = stack.enter_context(Service(tmp_path, "benchmarks.app:app", *options, workers=2))
    seen: Counter[tuple[str, ...]] = Counter()

    async def sample() -> None:
        while True:
            status = await asyncio.to_thread(service.status)
            seen[tuple(generation.state for generation in status.generations)] += 1
            await asyncio.sleep(0.05)

    async def prove() -> Report:
        control = Control(str(service.runtime))
        async with Load(Target.parse(service.address()), BRISK) as load, asyncio.TaskGroup() as group:
            await load.wait_every_client()
            sampling = group.create_task(sample())
            for number in range(2, RELOADS + 2):
                assert (await control.reload())["generation"] == number
            await load.every_kept_connection_answers(str(RELOADS + 1), SOON if FULL else DEADLINE)
            sampling.cancel()
            return await load.stop()

    began = time.monotonic()
    report = asyncio.run(prove())
    print(f"{RELOADS} reloads in {time.monotonic() - began:.0f} s: {report}, {report.crossed} crossed; {dict(seen)}")
    demand_nothing_lost(f"{RELOADS} reloads", report)
    assert all(tally.requests for tally in report.kinds.values())
    assert sum(seen.values()) > RELOADS
    for states in seen:
        assert states.count("serving") == 1
        assert states.count("draining") <= 2
        assert len(states) <= 1 + 2 + 1, states
    crossing = service.status().crossing
    assert (crossing.lost, crossing.closed) == (0, 0)
