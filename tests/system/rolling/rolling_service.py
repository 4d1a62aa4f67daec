"""A service that rolls, under load, and whose rollout can be made to stand at each of its steps.

A worker named by a file stands still in its import (``hold-2.1``), fails there (``broken-2.1``), or is not healthy
(``sick-2.1``).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.control import Control
from benchmarks.load import Load, Report, Target
from benchmarks.losses import Losses
from benchmarks.processes import hold, until
from stillup.client import NotRunningError
from stillup.wire.api_shapes import RolloutView
from tests.system.chaos.cell_runner import MIX
from tests.system.harness import eventually
from tests.system.killable_service import KillableService
from tests.system.rolling.capacity import CapacityWatch

PATIENCE = 30.0
"""Seconds for each wait: the machine may be busy with something else."""
Told = dict[str, Any]
"""An event, by its fields."""
APP = """
import os, pathlib, time
me = f"{os.environ['STILLUP_GENERATION']}.{os.environ['STILLUP_WORKER']}"
while pathlib.Path(f"hold-{me}").exists():
    pathlib.Path(f"held-{me}").touch()
    time.sleep(0.02)
if pathlib.Path(f"broken-{me}").exists():
    raise RuntimeError("broken on purpose")
from benchmarks.app import app as serving

async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/healthz" and pathlib.Path(f"sick-{me}").exists():
        raise RuntimeError("sick on purpose")
    await serving(scope, receive, send)
"""


@dataclass(frozen=True)
class Bounds:
    """How many workers, and how far it may be from that."""

    workers: int
    surge: int
    unavailable: int
    canary: bool = False
    """Whether its first new worker comes as a canary, which then passes by itself."""

    def __str__(self) -> str:
        bounds = f"{self.workers}-workers-surge-{self.surge}-unavailable-{self.unavailable}"
        return f"{bounds}-canary" if self.canary else bounds

    @property
    def most(self) -> int:
        """Workers that may live at once."""
        return self.workers + self.surge

    @property
    def least(self) -> int:
        """Workers that have to accept at any time."""
        return max(1, self.workers - self.unavailable)


class RollingService(KillableService):
    """``with`` starts it; it is at rest before and after each ``under_load``."""

    tracebacks_expected = True

    def __init__(self, folder: Path, bounds: Bounds, *options: str, path: str = "") -> None:
        """Have it in a folder; ``path`` leads to another stillup than this one."""
        self.bounds = bounds
        self.title = f"rolling-{secrets.token_hex(6)}"
        rolling = ["--strategy", "canary" if bounds.canary else "rolling", "--max-surge", f"{bounds.surge}"]
        rolling += ["--canary-time", "0.2", "--no-gate"] if bounds.canary else []
        rolling += ["--max-unavailable", f"{bounds.unavailable}"]
        called = ("--name", self.title, "--health-path", "/healthz")
        super().__init__(folder, *called, *rolling, *options, path=path, workers=bounds.workers)
        self.write(APP)
        self.control = Control(str(self.runtime))

    async def at_rest(self) -> None:
        """Wait until one generation serves, with as many workers as it should, whatever a test that failed has left."""
        for file in self.folder.iterdir():
            if file.name.partition("-")[0] in ("hold", "held", "broken", "sick"):
                file.unlink()
        await self.control.until(lambda status: len(status.get("generations", ())) == 1, PATIENCE, "one is left")
        (generation,) = self.status().generations
        if len(generation.workers) != self.bounds.workers:
            await asyncio.to_thread(lambda: self.client.scale(self.bounds.workers, wait="drained"))
        await self.control.serves_alone(generation.id, self.bounds.workers, PATIENCE)

    def last(self) -> RolloutView:
        """The last rollout."""
        rollout = self.status().rollout
        assert rollout is not None
        return rollout

    def told(self, since: int, kind: str, **fields: object) -> list[Told]:
        """The events of that kind after that number, whose fields are these."""
        wanted = {"kind": kind, **fields}
        return [event for event in self._events(since) if wanted.items() <= event.items()]

    def newest_event(self) -> int:
        """Its number."""
        return int(self._events()[-1]["seq"])

    def _events(self, since: int | None = None) -> list[Told]:
        try:
            with self.client.event_lines(since) as lines:
                return [json.loads(line) for line in lines]
        except NotRunningError:
            return []


@dataclass
class Roll:
    """One rollout of a service under load."""

    service: RollingService
    load: Load
    watch: CapacityWatch
    old: int
    """The generation that serves at its begin."""
    new: int
    """The one that its reload will bring."""
    since: int
    """The last event before it."""
    losses: Losses = field(default_factory=Losses)
    number: int = 0
    """Of the rollout, once it was asked for."""

    @property
    def size(self) -> int:
        return self.service.bounds.workers

    async def reload_to(self, step: int) -> None:
        """Begin a reload, and wait until so many of the new workers serve and the next one stands still in its boot."""
        self.mark("hold", *range(step + 1, self.size + 2))
        await self.reload()
        if step:
            await self.event("rollout.step", generation=self.new, new=step)
        await until((self.service.folder / f"held-{self.new}.{step + 1}").exists, PATIENCE, f"{self.new} at {step}")

    async def reload(self) -> None:
        """Begin a reload."""
        rollout = await asyncio.to_thread(self.service.client.reload)
        self.number = rollout.id

    def mark(self, what: str, *slots: int, generation: int = 0) -> None:
        """Have workers of the new generation, or of another, ``hold``, be ``broken`` or ``sick``."""
        for slot in slots:
            (self.service.folder / f"{what}-{generation or self.new}.{slot}").touch()

    def go_on(self) -> None:
        """Let all who stand still go on."""
        for file in self.service.folder.glob("hold-*"):
            file.unlink()

    async def event(self, kind: str, **fields: object) -> None:
        """Wait until that was told since the begin."""

        def look() -> list[Told]:
            return self.service.told(self.since, kind, **fields)

        await asyncio.to_thread(eventually, look, f"{kind} {fields}")

    async def settled(self, *, outcome: str, reason: str = "") -> RolloutView:
        """Wait for the outcome of the rollout, which has to be that one."""
        rollout = await asyncio.to_thread(self.service.settled, self.number)
        assert (rollout.outcome, rollout.reason) == (outcome, reason), f"{rollout}\n{self.service.log()[-4000:]}"
        return rollout

    async def kill(self, generation: int, slot: int) -> None:
        """Kill a worker, when it is known which connections it has; one fewer may accept from here on, if it did."""
        (worker,) = [one for one in self.service.client.workers() if one.id == f"{generation}.{slot}"]
        assert worker.pid is not None
        self.watch.least -= worker.state == "serving"
        with hold(worker.pid) as grip:
            await grip.stop()
            self.losses.will_take(grip.holds())
            await grip.kill()

    async def die(self) -> None:
        """Kill the supervisor, let all who stand still go on, and start the next one."""
        await asyncio.to_thread(self.service.die)
        self.go_on()
        await asyncio.to_thread(self.service.start)

    async def stays(self, generation: int, size: int | None = None) -> None:
        """Wait until that generation serves alone, with all its workers, and every kept connection is at one of it."""
        await self.service.control.serves_alone(generation, size or self.size, PATIENCE)
        await self.load.every_kept_connection_answers(str(generation), PATIENCE)
        await self.load.wait_every_client(deadline=PATIENCE)


@asynccontextmanager
async def under_load(service: RollingService, **allowed: Any) -> AsyncIterator[Roll]:
    """Begin at rest, and demand at the end that nobody has lost anything, and that the bounds held at every instant.

    ``allowed``: other bounds than those of the service (``most``, ``least``).
    """
    await service.at_rest()
    bounds = {"most": service.bounds.most, "least": service.bounds.least, **allowed}
    (serving,) = service.generations()
    latest = service.last().generation
    assert latest is not None
    losses = Losses()
    with CapacityWatch(service.title, service.address(), **bounds) as watch:
        async with Load(Target.parse(service.address()), MIX, seed=1, lost=losses.note) as load:
            await load.wait_every_client(deadline=PATIENCE)
            roll = Roll(service, load, watch, serving, latest + 1, service.newest_event(), losses)
            try:
                yield roll
            finally:
                roll.go_on()
            report = await load.stop(PATIENCE)
    print(f"{report.requests} requests, {_lost(report, losses)}; {watch}")
    losses.demand_all_explained()


def _lost(report: Report, losses: Losses) -> str:
    if not losses.allowed:
        return f"{report.failed} failed, {report.closed} closed"
    return f"{losses.lost} of {losses.allowed} connections of the killed lost, {len(losses.unexplained)} others"
