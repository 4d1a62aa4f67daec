"""Kill the supervisor at a random instant of a reload, again and again: `python -m benchmarks.takeover`.

The service is under a load of every kind. After each kill another supervisor is started, takes over, and reloads. With
`--reexec` it replaces its own program instead, at a random instant after each reload. Exits with 1 at the first loss: a
failed request, a closed connection, a reload that does not work, or a worker that was replaced though its rollout had
been reported as done.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Any

from benchmarks.connection import NoAnswer
from benchmarks.control import Exits
from benchmarks.drop import MIX, Noticed, demand_nothing_lost
from benchmarks.killable_service import WORKERS, KillableService, killable_service
from benchmarks.load import Load
from benchmarks.processes import fewest_descriptors
from benchmarks.server import ServerFailed, run

RUNS = 20
WINDOW = 1.5
"""Seconds after the request for a reload in which the supervisor is struck."""
BOOT = 0.2
"""The same of every other strike: in these the workers boot, which are forked."""
AWAY = 0.3
"""Seconds, at most, without a supervisor before another one is started."""
TWICE = 0.25
"""How often the next supervisor, or the next program, is killed while it takes over."""
PATIENCE = 15.0
"""Seconds for each step."""


@dataclass
class Counts:
    """What came of the reloads in which the supervisor was struck, and for how long nobody supervised."""

    ends: Counter[str] = field(default_factory=Counter)
    away: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.ends.items()))
        return f"{len(self.away)} times: {ends}; a supervisor again after {max(self.away):.2f} s at most"


@dataclass(frozen=True)
class Series:
    """What is done to the supervisor, again and again."""

    strike: Callable[[KillableService, Random], Awaitable[None]]
    """Does it; when it returns, there is a supervisor that serves."""
    at_any_time: bool
    """Whether also before the reload has been answered."""


async def kill(service: KillableService, random: Random) -> None:
    """Kill it, and start another one a moment later; one time in four that is killed too while it takes over."""
    await service.kill()
    await asyncio.sleep(random.uniform(0, AWAY))
    if random.random() < TWICE:
        await service.launch()
        await asyncio.sleep(random.uniform(0, WINDOW))
        await service.kill()
    await service.start()


async def reexec(service: KillableService, random: Random) -> None:
    """Have it replace its own program, in the same process; one time in four it is killed while it does."""
    pid, before = service.pid, int((await service.control.status())["reexecs"])
    service.server.process.send_signal(signal.SIGUSR2)
    if random.random() < TWICE:
        await asyncio.sleep(random.uniform(0, WINDOW))
        await service.kill()
        await service.start()
        return

    def replaced(status: dict[str, Any]) -> bool:
        service.server.check()
        return int(status.get("reexecs", 0)) > before

    status = await service.control.until(replaced, PATIENCE, "the program is replaced")
    if status["pid"] != pid:
        raise service.server.failed(f"pid {pid} became pid {status['pid']}")


KILL, REEXEC = Series(kill, at_any_time=True), Series(reexec, at_any_time=False)


async def prove(service: KillableService, load: Load, series: Series, runs: int, random: Random) -> Counts:
    """Strike the supervisor in the middle of so many reloads, and demand that nobody notices.

    Raises:
        Noticed: somebody could.
        NoAnswer, TimeoutError, ServerFailed: the service did not go on as it has to.
    """
    counts = Counts()
    for number in range(1, runs + 1):
        when = await _strike_in_a_reload(service, series, random, counts)
        struck = (await service.control.status())["rollout"]["id"]
        await _reload(service, load)
        # Only now: the next reload may have come before its end.
        counts.ends[f"{when} and {_end(await service.control.rollout(struck))}"] += 1
        demand_nothing_lost(f"strike {number}", load.report)
    return counts


async def _strike_in_a_reload(service: KillableService, series: Series, random: Random, counts: Counts) -> str:
    """Ask for a reload and strike; whether that was before its answer."""
    control = service.control
    asked = asyncio.create_task(control.reload())
    if not series.at_any_time:
        await asyncio.wait([asked], timeout=PATIENCE)
    await asyncio.sleep(random.uniform(0, random.choice((BOOT, WINDOW))))
    answered = asked.done()
    settled = (await asked)["generation"] if answered else 0
    before = service.workers_of(settled)
    began = time.monotonic()
    await series.strike(service, random)
    counts.away.append(time.monotonic() - began)
    try:
        await asyncio.wait_for(asked, PATIENCE)
    except NoAnswer:  # who was asked is gone
        if answered:
            raise
    if settled and (after := service.workers_of(settled)) != before:
        raise service.server.failed(f"the workers of generation {settled}, which served, were {before} and are {after}")
    if random.random() < 0.5:  # else the next reload comes while this one is not at its end
        await control.until(_is_at_rest, PATIENCE, "the rollout has ended")
    return f"struck {'after' if answered else 'before'} the reload's answer"


def _end(rollout: dict[str, Any]) -> str:
    return f"{rollout['outcome']}" + (f" ({rollout['reason']})" if rollout["reason"] else "")


def _is_at_rest(status: dict[str, object]) -> bool:
    rollout = status.get("rollout")
    return isinstance(rollout, dict) and rollout["state"] in ("done", "aborted")


async def _reload(service: KillableService, load: Load) -> None:
    """The next reload works, and all clients come to its generation."""
    control = service.control
    with ExitStack() as stack:
        exits = stack.enter_context(Exits(await control.pids()))
        async with asyncio.timeout(PATIENCE):
            generation = (await control.reload())["generation"]
        await load.every_kept_connection_answers(str(generation), PATIENCE)
        await exits.all(PATIENCE)
    await control.serves_alone(generation, WORKERS, PATIENCE)
    await load.wait_every_client(deadline=PATIENCE)


async def main(options: argparse.Namespace) -> int:
    """Run the series and print what it saw; 1 if anything was lost."""
    random = Random(options.seed)
    try:
        async with killable_service() as (service, target):
            async with Load(target, MIX, seed=options.seed) as load:
                await load.wait_every_client()
                descriptors = await fewest_descriptors(service.pid)
                try:
                    counts = await prove(service, load, options.series, options.runs, random)
                except (Noticed, NoAnswer, TimeoutError) as error:
                    raise service.server.failed(f"{error or 'did not answer in time'}") from error
                report = await load.stop()
            demand_nothing_lost(f"{options.runs} strikes", report)
            service.server.check()
            after = await fewest_descriptors(service.pid)
    except (Noticed, ServerFailed, NoAnswer, TimeoutError) as error:
        print(f"seed {options.seed}: {error}", file=sys.stderr)
        return 1
    print(f"{counts}")
    print(f"{report}, {report.crossed} crossed, longest time without answer {report.longest_gap * 1000:.0f} ms")
    print(f"descriptors of the supervisor: {descriptors} before, {after} after")
    return int(after > descriptors)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.takeover", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--reexec", action="store_const", const=REEXEC, default=KILL, dest="series", help="replace its program, instead"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(main(_options())))
