"""Reload for a long time under load while workers are killed at random: `python -m benchmarks.soak --minutes 20`.

Exits with 1 at the first loss that is not a connection which a killed worker held, at a reload that fails though none
of its workers was killed, or if the supervisor is larger at the end than at the beginning.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import psutil

from benchmarks.connection import NoAnswer
from benchmarks.killable_service import KillableService, killable_service
from benchmarks.load import Load, Mix, Pace
from benchmarks.losses import Losses
from benchmarks.processes import fewest_descriptors, hold, workers
from benchmarks.server import ServerFailed, run

MIX = Mix(
    fresh=2,
    unread=2,
    half_head=2,
    keepalive=4,
    idle=4,
    pipelined=1,
    next_half=2,
    early=1,
    background=1,
    slow=2,
    upload=1,
    stream=1,
    chunked=1,
    think=0.05,
    pace=Pace(slow=0.2, upload=0.25, stream=0.3, early=0.1, silence=0.5),
)
"""Every kind, with pauses: it is the reloads that are to be many."""
BETWEEN_KILLS = 5.0
"""Seconds, on the average."""
PATIENCE = 20.0
"""Seconds for each reload, until everybody is answered by its generation."""
WARM_UP = 10
"""Reloads before the first sample: what is loaded once, and kept, is no leak."""
MEMORY = 1.1
"""How much larger the last quarter's memory may be: an allocator keeps some of what it had."""
SHOWN = 10.0
"""Seconds between two lines of progress."""


@dataclass(frozen=True)
class Sample:
    """The supervisor between two reloads; memory is its own (USS), in KiB."""

    descriptors: int
    memory: int
    threads: int
    processes: int


@dataclass
class Soak:
    """One run, and all that it counted."""

    service: KillableService
    load: Load
    losses: Losses
    random: Random
    reloads: int = 0
    rejected: int = 0
    kills: int = 0
    samples: list[Sample] = field(default_factory=list)
    _enough: asyncio.Event = field(default_factory=asyncio.Event)
    _hit: set[int] = field(default_factory=set)

    async def run(self, seconds: float) -> None:
        """Reload until the time is over.

        Raises:
            AssertionError, NoAnswer, TimeoutError: something was not as it has to be.
        """
        ends = time.monotonic() + seconds
        shown = time.monotonic()
        killing = asyncio.create_task(self._kill_some())
        try:
            while time.monotonic() < ends:
                await self._reload()
                self.losses.demand_all_explained()
                if killing.done():
                    killing.result()
                if self.reloads > WARM_UP:
                    self.samples.append(await self._sample())
                if time.monotonic() - shown > SHOWN:
                    shown = time.monotonic()
                    print(self, flush=True)
        finally:
            self._enough.set()
            await killing  # not cancelled: whoever was stopped has to be killed
        await self.load.wait_every_client(deadline=PATIENCE)

    async def _reload(self) -> None:
        """Reload, and wait until all clients are answered by whoever serves then."""
        control = self.service.control
        self.reloads += 1
        try:
            async with asyncio.timeout(PATIENCE):
                generation = (await control.reload())["generation"]
        except NoAnswer:
            rollout = (await control.status())["rollout"]
            if rollout["outcome"] != "aborted" or rollout["generation"] not in self._hit:
                raise
            self.rejected += 1
            return
        await self.load.every_kept_connection_answers(str(generation), PATIENCE)

    async def _kill_some(self) -> None:
        """Kill any worker of any generation every now and then, with what it holds put to its account."""
        while not await self._wait(self.random.expovariate(1 / BETWEEN_KILLS)):
            victim = self.random.choice(workers(self.service.title))
            try:
                with hold(victim.pid) as grip:
                    await grip.stop()
                    self._hit.add(victim.generation)
                    self.losses.will_take(grip.holds())
                    await grip.kill()
            except (ProcessLookupError, FileNotFoundError, TimeoutError):
                continue  # it left by itself before it could be stopped
            self.kills += 1

    async def _wait(self, seconds: float) -> bool:
        """Wait so long, or until there was enough of it; whether there was."""
        try:
            async with asyncio.timeout(seconds):
                return await self._enough.wait()
        except TimeoutError:
            return False

    async def _sample(self) -> Sample:
        supervisor = psutil.Process(self.service.pid)
        return Sample(
            await fewest_descriptors(supervisor.pid),
            supervisor.memory_full_info().uss >> 10,
            supervisor.num_threads(),
            len(supervisor.children(recursive=True)),
        )

    def __str__(self) -> str:
        report, losses = self.load.report, self.losses
        return (
            f"{report.duration:5.0f} s: {self.reloads} reloads, {self.rejected} rejected as a new worker was killed; "
            f"{self.kills} workers killed, {losses.lost} of the {losses.allowed} connections lost that they held, "
            f"{len(losses.unexplained)} others; {report.requests} requests, {report.failed} failed, "
            f"{report.closed} closed"
        )


@dataclass(frozen=True)
class Quarters:
    """The medians of the four quarters of the samples."""

    medians: Sequence[Sample]

    @property
    def flat(self) -> bool:
        """Whether there is no more of anything in the last than in the first; of memory, not much more."""
        first, last = self.medians[0], self.medians[-1]
        fixed = all(getattr(last, name) <= getattr(first, name) for name in ("descriptors", "threads", "processes"))
        return fixed and last.memory <= first.memory * MEMORY

    def __str__(self) -> str:
        shown = {"descriptors": "descriptors", "memory": "USS in KiB", "threads": "threads", "processes": "processes"}
        rows = (f"{what} {', '.join(str(getattr(m, name)) for m in self.medians)}" for name, what in shown.items())
        return f"the supervisor, medians of the quarters: {'; '.join(rows)}"


def quarters(samples: Sequence[Sample]) -> Quarters | None:
    """Compare the parts of a run; None if it was too short for that."""
    size = len(samples) // 4
    if not size:
        return None
    return Quarters([_median(samples[number * size : (number + 1) * size]) for number in range(4)])


def _median(samples: Sequence[Sample]) -> Sample:
    names = ("descriptors", "memory", "threads", "processes")
    return Sample(*(int(statistics.median_low([getattr(sample, name) for sample in samples])) for name in names))


async def main(options: argparse.Namespace) -> int:
    """Run for as long as was asked and print what it saw; 1 if anything was not as it has to be."""
    losses = Losses()
    try:
        async with killable_service() as (service, target):
            async with Load(target, MIX, seed=options.seed, lost=losses.note) as load:
                await load.wait_every_client()
                soak = Soak(service, load, losses, Random(options.seed))
                try:
                    await soak.run(options.minutes * 60)
                    await load.stop()
                    losses.demand_all_explained()
                except (AssertionError, NoAnswer, TimeoutError) as error:
                    raise service.server.failed(f"{error or 'did not answer in time'}\n{soak}") from error
            service.server.check()
    except (ServerFailed, TimeoutError) as error:
        print(f"seed {options.seed}: {error}", file=sys.stderr)
        return 1
    print(soak)
    compared = quarters(soak.samples)
    if compared is None:
        print("too short to compare the supervisor's beginning and end")
        return 0
    print(compared)
    return 0 if compared.flat else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(main(_options())))
