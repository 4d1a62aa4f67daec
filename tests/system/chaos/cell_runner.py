"""Where the cells of the matrix are played: a service under load, a rollout that stands still at a phase, and the blow.

What may be lost is said before: the victim stands still when it is asked which connections it holds, and is killed
without having moved since.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.connection import NoAnswer
from benchmarks.control import Exits
from benchmarks.load import Load, Loss, Mix, Pace, Target
from benchmarks.losses import Losses
from benchmarks.processes import Grip, fewest_descriptors, hold, preloaders, until, workers
from tests.system.chaos.chaos_service import WORKERS, Hit
from tests.system.chaos.matrix import Blow, Cell, Victim
from tests.system.mutations import Mutation

MIX = Mix(
    fresh=2,
    unread=2,
    half_head=2,
    keepalive=4,
    idle=4,
    pipelined=2,
    next_half=2,
    early=2,
    background=2,
    slow=2,
    upload=2,
    stream=1,
    chunked=1,
    think=0.15,
    pace=Pace(slow=0.2, upload=0.2, stream=0.2, early=0.1, silence=0.3),
)
"""Every kind, and none whose request takes long."""
PATIENCE = 10.0
"""Seconds for each step of a cell."""
SOON = 5.0
"""Seconds from when everybody is answered by a generation until the processes of the one before are gone."""
STOPPED = (0.3, 0.8)
"""Seconds for which a victim is stopped: far less than any deadline of the hand-off, the drain or keep-alive."""
AWAY = (0.0, 0.3)
"""Seconds without a supervisor, before another one is started."""


class Broken(AssertionError):
    """A cell did not come out as it has to; the text says how, and with which seed."""

    def __init__(self, cell: Cell | None, seed: int, why: object, log: str) -> None:
        where = f"{cell} (id {cell.id}, seed {seed})" if cell is not None else f"before the first cell (seed {seed})"
        super().__init__(f"{where}: {why}\n{log}")
        self.cell = cell


@dataclass
class Outcome:
    """What a cell saw."""

    cell: Cell
    losses: Losses = field(default_factory=Losses)
    rollout: dict[str, Any] = field(default_factory=dict)
    requests: int = 0


def play(
    cells: Sequence[Cell],
    folder: Path,
    seed: int,
    changes: Sequence[Mutation] = (),
    done: Callable[[Outcome], None] = lambda _: None,
) -> None:
    """Play one cell after the other on one service, and demand that each comes out as it has to.

    ``done`` is told of each that did.

    Raises:
        Broken: one does not; or something is left when the service has stopped, and the last is named.
    """
    at: list[Cell] = []

    async def run() -> None:
        async with _cell_runner(service, seed) as runner:
            for cell in cells:
                at.append(cell)
                done(await runner.play(cell))

    try:
        with Hit(folder, changes) as service:
            asyncio.run(run())
    except (AssertionError, TimeoutError, NoAnswer) as error:
        log = (folder / "log").read_text(errors="replace")
        raise Broken(at[-1] if at else None, seed, str(error) or repr(error), log) from error


@asynccontextmanager
async def _cell_runner(service: Hit, seed: int) -> AsyncIterator[CellRunner]:
    runner = CellRunner(service, seed, await fewest_descriptors(service.pid))
    async with runner.load as load:
        await load.wait_every_client(deadline=PATIENCE)
        yield runner
        await load.stop(deadline=PATIENCE)
        runner.judge()


class CellRunner:
    """A service with its load. It is at rest before and after each cell."""

    def __init__(self, service: Hit, seed: int, descriptors: int) -> None:
        """Play by ``seed``; between two cells the supervisor has so many ``descriptors``."""
        self.service = service
        self.load = Load(Target.parse(service.address()), MIX, seed=seed, lost=self._note)
        self._seed = seed
        self._descriptors = descriptors
        self._lost = 0
        self._losses = Losses()
        self._old = self._last_rollout = 1

    def _note(self, loss: Loss) -> None:
        self._losses.note(loss)

    async def play(self, cell: Cell) -> Outcome:
        """Begin a rollout, hit the victim where the rollout stands still, and see that all goes on as it has to.

        Raises:
            AssertionError, TimeoutError, NoAnswer: it does not.
        """
        outcome = Outcome(cell)
        requests = self.load.report.requests
        self._losses = outcome.losses
        await _Hitting(cell, self.service, self._old, Random(f"{self._seed} {cell.id}"), self._losses).hit()
        outcome.rollout = await self._settled(cell)
        await self._next_reload()
        outcome.requests = self.load.report.requests - requests
        self._lost += outcome.losses.lost
        self.judge()
        if cell.surely_costs:
            assert outcome.losses.lost, "who was killed held nothing: nothing would be proven"
        after = await fewest_descriptors(self.service.pid)
        assert after <= self._descriptors, f"the supervisor had {self._descriptors} descriptors, and has {after}"
        return outcome

    def judge(self) -> None:
        """Fail if anything was lost that no death explains."""
        self._losses.demand_all_explained()
        report = self.load.report
        assert report.reconnected <= self._lost, f"clients reconnected that had lost nothing: {report}"

    async def _settled(self, cell: Cell) -> dict[str, Any]:
        """Wait until the rollout has its outcome, and all is at rest."""
        control, number = self.service.control, self._last_rollout + 1

        def ended(status: dict[str, Any]) -> bool:
            shown = status.get("rollout") or {}
            return shown.get("id") == number and shown["state"] in ("done", "aborted")

        await control.until(ended, PATIENCE, f"rollout {number} has ended")
        rollout = await control.rollout(number)
        assert rollout["outcome"] == cell.outcome, f"{rollout['outcome']} ({rollout['reason']}), not {cell.outcome}"
        serving = rollout["generation"] if cell.outcome == "succeeded" else self._old
        await control.serves_alone(serving, WORKERS, PATIENCE)
        return rollout

    async def _next_reload(self) -> None:
        """The next reload works, and soon everybody is answered by its generation."""
        control = self.service.control
        with Exits(await control.pids()) as exits:
            async with asyncio.timeout(PATIENCE):
                rollout = await control.reload()
            generation = rollout["generation"]
            await self.load.every_kept_connection_answers(str(generation), PATIENCE)
            await exits.all(SOON)
        await control.serves_alone(generation, WORKERS, PATIENCE)
        await self.load.wait_every_client(deadline=PATIENCE)
        self._old = generation
        self._last_rollout = rollout["id"]


@dataclass
class _Hitting:
    """One blow."""

    cell: Cell
    service: Hit
    old: int
    """The generation that serves."""
    random: Random
    losses: Losses

    async def hit(self) -> None:
        """Begin a rollout, and hit the victim where the rollout stands still."""
        service, cell = self.service, self.cell
        service.arm(cell.phase.name)
        asked = asyncio.create_task(self._ask())
        with ExitStack() as stack:
            pid, given = await service.reached(PATIENCE)
            there = stack.enter_context(hold(pid))
            victim = there if cell.victim is cell.phase.who else stack.enter_context(hold(await self._choose()))
            if cell.blow is Blow.BOTH:
                await stack.enter_context(hold(service.pid)).stop()
            await victim.stop()
            if cell.blow is Blow.STOP:
                if there is not victim:
                    there.go_on()
                await asyncio.sleep(self.random.uniform(*STOPPED))
                victim.go_on()
            else:
                await self._kill(victim, given if victim is there else [])
                there.go_on()
        await asked
        if cell.kills_supervisor:
            await asyncio.sleep(self.random.uniform(*AWAY))
            await service.start_again(PATIENCE)

    async def _ask(self) -> None:
        """Ask for a reload; what becomes of it is asked later, since who is asked may die."""
        try:
            await self.service.control.reload()
        except NoAnswer:
            return

    async def _choose(self) -> int:
        """Any process that is a victim of this kind; one that has just been forked is not known by its name at once.

        Where the first process was just started that is, with --preload, the preloader.
        """
        if self.cell.victim is Victim.SUPERVISOR:
            return self.service.pid
        new = self.cell.victim is Victim.NEW
        found: list[int] = []

        def look() -> bool:
            living = [(worker.generation, worker.pid) for worker in workers(self.service.title)]
            if self.cell.phase.name == "spawning" and new:
                living += preloaders(self.service.title).items()
            found[:] = [pid for generation, pid in living if (generation > self.old) is new]
            return bool(found)

        await until(look, PATIENCE, f"there is a {self.cell.victim}")
        return self.random.choice(found)

    async def _kill(self, victim: Grip, given: list[int]) -> None:
        """Kill the victim when it is known what that may cost, and perhaps the supervisor, which stands still."""
        if self.cell.costs_connections:
            self.losses.will_take(victim.holds(without=given))
        await victim.kill()
        # Not before: the kernel lets a stopped process go on whose process group loses its last parent (setpgid(2)).
        if self.cell.kills_supervisor:
            self.service.process.kill()
            await asyncio.to_thread(self.service.process.wait)
