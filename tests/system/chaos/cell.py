"""One field of the matrix: a service under load, a rollout that stands still at a phase, and the blow.

What may be lost is said before: the victim stands still when it is asked which connections it holds, and is killed
without having moved since.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil

from benchmarks.connection import NoAnswer
from benchmarks.control import Control, Exits
from benchmarks.load import Load, Mix, Pace, Report, Target
from benchmarks.processes import Grip, fewest_descriptors, hold, until, workers
from benchmarks.toll import Toll
from tests.system.chaos import plug
from tests.system.chaos.points import CHANGES, Blow, Cell, Change, Victim
from tests.system.harness import ROOT, Service, mutated

WORKERS = 2
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
    pace=Pace(slow=0.2, upload=0.25, stream=0.3, early=0.1, silence=0.5),
)
"""Every kind, and none whose request takes long."""
PATIENCE = 10.0
"""Seconds for each step of a cell."""
LATENCY = 2.0
"""Seconds until everybody is answered by the generation that serves."""
STOPPED = (0.3, 0.8)
"""Seconds for which a victim is stopped: far less than any deadline of the hand-off, the drain or keep-alive."""
AWAY = (0.0, 0.3)
"""Seconds without a supervisor, before another one is started."""
OLD, NEW = 1, 2
"""The generations, and so the rollouts."""


class Broken(AssertionError):
    """A cell did not come out as it has to; the text says how, and with which seed."""


@dataclass
class Outcome:
    """What a cell saw."""

    toll: Toll = field(default_factory=Toll)
    rollout: dict[str, Any] = field(default_factory=dict)
    requests: int = 0


class Hit(Service):
    """A service that can be hit, its supervisor too: whoever is its own is known by its name."""

    def __init__(self, folder: Path, changes: Sequence[Change] = ()) -> None:
        """Make a copy of stillup with the phases in it, and perhaps broken by more changes."""
        self.title = f"chaos-{secrets.token_hex(6)}"
        copy = mutated(folder, *CHANGES, *changes)["PYTHONPATH"]
        self.plug = Path(copy)
        shutil.copy(plug.__file__, self.plug / "chaos_plug.py")
        super().__init__(
            folder,
            "benchmarks.app:app",
            *("--name", self.title, "--no-access-log", "--health-path", "/healthz", "--orphan-timeout", "60"),
            workers=WORKERS,
            environment={"PYTHONPATH": f"{copy}:{ROOT}"},
        )
        self.control = Control(str(self.runtime))

    def family(self) -> list[psutil.Process]:
        """The workers, whoever started them."""
        return [psutil.Process(worker.pid) for worker in workers(self.title)]

    def __exit__(self, *error: object) -> None:
        """Stop, and find nothing left; after a failure, only end what is left."""
        try:
            if not any(error):
                super().__exit__()
                assert not self.family(), f"left behind: {self.family()}\n{self.log()}"
        finally:
            self._end()

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for worker in self.family():
            worker.kill()

    def arm(self, phase: str) -> None:
        """Let the next process that comes to that phase stand still there."""
        new = self.plug / "arming"
        new.write_text(phase)
        new.rename(self.plug / plug.ARMED)

    async def reached(self) -> tuple[int, list[int]]:
        """Wait until one stands still; its pid, and which of its descriptors it has given away."""
        await until((self.plug / plug.REACHED).exists, PATIENCE, "the phase is reached")
        said = json.loads((self.plug / plug.REACHED).read_text())
        with hold(said["pid"]) as grip:
            await until(grip.stands_still, PATIENCE, "it stands still")
        return said["pid"], said["given"]

    async def start_again(self) -> None:
        """Start another supervisor, and wait until it serves."""
        self._wait = False
        self.start()

        def serves(status: dict[str, Any]) -> bool:
            assert self.process.poll() is None, f"the next supervisor ended with {self.process.returncode}"
            return status.get("state") == "serving"

        await self.control.until(serves, PATIENCE, "another supervisor serves")


def run(cell: Cell, folder: Path, seed: int, changes: Sequence[Change] = ()) -> Outcome:
    """Start a service, hit it, and demand that all comes out as it has to.

    Raises:
        Broken: it does not.
    """
    outcome = Outcome()
    try:
        with Hit(folder, changes) as service:
            asyncio.run(_Run(cell, service, Random(f"{cell.id} {seed}"), outcome).run())
            log = service.log()
    except (AssertionError, TimeoutError, NoAnswer) as error:
        log = (folder / "log").read_text(errors="replace") if (folder / "log").exists() else ""
        raise Broken(f"{cell} (id {cell.id}, seed {seed}): {error}\n{log}") from error
    assert log
    return outcome


def _has_ended(status: dict[str, Any]) -> bool:
    rollout = status.get("rollout")
    return rollout is not None and rollout["id"] == NEW and rollout["state"] in ("done", "aborted")


class _Run:
    def __init__(self, cell: Cell, service: Hit, random: Random, outcome: Outcome) -> None:
        self.cell = cell
        self.service = service
        self.random = random
        self.outcome = outcome

    async def run(self) -> None:
        service, outcome = self.service, self.outcome
        target = Target.parse(service.address())
        before = await fewest_descriptors(service.process.pid)
        async with Load(target, MIX, seed=self.random.randrange(2**32), lost=outcome.toll.note) as load:
            await load.wait_every_client(deadline=PATIENCE)
            await self._hit()
            await self._settled()
            await self._next_reload(load)
            report = await load.stop(deadline=PATIENCE)
        outcome.requests = report.requests
        self._judge(report)
        after = await fewest_descriptors(service.process.pid)
        assert after <= before, f"the supervisor had {before} descriptors, and has {after}"

    async def _hit(self) -> None:
        """Begin a rollout, and hit the victim where the rollout stands still."""
        service = self.service
        service.arm(self.cell.phase.name)
        asked = asyncio.create_task(self._ask())
        with ExitStack() as stack:
            pid, given = await service.reached()
            there = stack.enter_context(hold(pid))
            victim = there if self.cell.victim is self.cell.phase.who else stack.enter_context(hold(self._choose()))
            if self.cell.kills_supervisor:
                stack.enter_context(hold(service.process.pid)).signal(signal.SIGSTOP)
            await victim.stop()
            if self.cell.blow is Blow.STOP:
                if there is not victim:
                    there.go_on()
                await asyncio.sleep(self.random.uniform(*STOPPED))
                victim.go_on()
            else:
                await self._kill(victim, given if victim is there else [])
                there.go_on()
        await asked
        if self.cell.kills_supervisor:
            await asyncio.sleep(self.random.uniform(*AWAY))
            await service.start_again()

    async def _kill(self, victim: Grip, given: list[int]) -> None:
        """Kill the victim when it is known what that may cost, and perhaps the supervisor, which stands still."""
        if self.cell.costs_connections:
            self.outcome.toll.will_take(victim.holds(without=given))
        await victim.kill()
        # Not before: the kernel lets a stopped process go on whose process group loses its last parent (setpgid(2)).
        if self.cell.kills_supervisor:
            self.service.process.kill()
            await asyncio.to_thread(self.service.process.wait)

    async def _ask(self) -> None:
        """Ask for a reload; what becomes of it is asked later, since who is asked may die."""
        try:
            await self.service.control.reload()
        except NoAnswer:
            return

    def _choose(self) -> int:
        if self.cell.victim is Victim.SUPERVISOR:
            return self.service.process.pid
        generation = OLD if self.cell.victim is Victim.OLD else NEW
        return self.random.choice([w.pid for w in workers(self.service.title) if w.generation == generation])

    async def _settled(self) -> None:
        """Wait until the rollout has its outcome, and all is at rest."""
        control = self.service.control
        await control.until(_has_ended, PATIENCE, f"rollout {NEW} has ended")
        self.outcome.rollout = rollout = await control.rollout(NEW)
        wanted = self.cell.outcome
        assert rollout["outcome"] == wanted, f"{rollout['outcome']} ({rollout['reason']}), not {wanted}"
        await control.serves_alone(NEW if rollout["outcome"] == "succeeded" else OLD, WORKERS, PATIENCE)

    async def _next_reload(self, load: Load) -> None:
        """The next reload works, and soon everybody is answered by its generation."""
        control = self.service.control
        with Exits(await control.pids()) as exits:
            async with asyncio.timeout(PATIENCE):
                generation = (await control.reload())["generation"]
            await load.every_kept_connection_answers(str(generation), PATIENCE)
            await exits.all(LATENCY)
        await control.serves_alone(generation, WORKERS, PATIENCE)
        await load.wait_every_client(deadline=PATIENCE)

    def _judge(self, report: Report) -> None:
        toll = self.outcome.toll
        toll.demand_all_explained()
        assert report.reconnected <= toll.lost, f"clients reconnected that had lost nothing: {report}"
        if self.cell.surely_costs:
            assert toll.lost, "who was killed held nothing: nothing would be proven"
