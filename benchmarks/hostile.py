"""Reload under load while one worker misbehaves by turns: `python -m benchmarks.hostile --minutes 10`.

The worker in slot 1 does in each generation something else that it must not (benchmarks/hostile_app.py), and in every
other one it burns a processor and says nothing: what is measured beside the one is compared with what is measured
beside the other. Before the first sample the supervisor's histories are filled, while all workers mean well: to these
bounds it may grow, and no further. Exits with 1 if a client notices anything, a reload fails, `/livez` or a reload
takes too long, or the supervisor grows.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.connection import Connection, NoAnswer, Target
from benchmarks.control import Control
from benchmarks.hostile_app import MODES, SILENT
from benchmarks.load import Load, Mix, Pace
from benchmarks.server import Server, ServerFailed, command, run, started

WORKERS = 3
MIX = Mix(
    fresh=2,
    keepalive=4,
    idle=4,
    half_head=1,
    next_half=2,
    slow=2,
    upload=1,
    stream=1,
    think=0.1,
    pace=Pace(slow=0.2, upload=0.25, stream=0.3, silence=0.5),
)
PATIENCE = 30.0
"""Seconds for a reload, and until everybody is answered by its generation."""
PROBE = 0.02
"""Seconds between two requests for `/livez`."""
LIVEZ = 2.0
"""How many times as long `/livez` may take beside a worker that misbehaves, at its 99th percentile."""
RELOAD = 1.5
"""The same of a reload, at its median."""
LEAST = 0.005
"""Seconds; less is not told apart from nothing on a machine that does other things."""
MEMORY = 1.1
"""How much larger the supervisor may be in the last quarter than in the first."""
ROLLOUTS = 33
"""As many are known at most: 32 that have ended, and one."""
EVENTS = 1_000
"""As many as the history keeps."""


@dataclass
class Hostile:
    """One run, and all that it counted."""

    control: Control
    server: Server
    load: Load
    modes: Sequence[str]
    first: int = 1
    """The generation that is the first to misbehave. With any before it the histories are filled."""
    livez: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    reloads: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    memory: list[int] = field(default_factory=list)
    """The supervisor's own (USS), in KiB, once a generation."""
    unanswered: int = 0

    async def run(self, reloads: int, dwell: float) -> None:
        """Reload so many times, and spend so many seconds beside each generation.

        Raises:
            NoAnswer, TimeoutError: a reload failed, or took too long.
        """
        generation = await self._fill()
        for _ in range(reloads):
            await self._beside(generation, dwell)
            mode = self._mode(generation)
            generation, took = await self._reload()
            self.reloads[mode].append(took)
        await self._beside(generation, dwell)
        await self.load.wait_every_client(deadline=PATIENCE)

    async def _reload(self) -> tuple[int, float]:
        """Reload; which generation serves then, and the seconds that it took."""
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            generation: int = (await self.control.reload())["generation"]
        took = time.monotonic() - began
        await self.load.every_kept_connection_answers(str(generation), PATIENCE)
        return generation, took

    async def _fill(self) -> int:
        """Have as many rollouts and events known as are kept, if there is time for that; who serves then."""
        if self.first == 1:
            return 1
        for _ in range(EVENTS // 3 + 1):  # that it was asked for, is so, and is done
            await self.control.change(f"scale?workers={WORKERS}&wait=true")
        generation = 1
        while generation < self.first:
            generation, _ = await self._reload()
        return generation

    def _mode(self, generation: int) -> str:
        return self.modes[(generation - self.first) % len(self.modes)]

    async def _beside(self, generation: int, seconds: float) -> None:
        """Ask for `/livez` all the time."""
        mode, ends = self._mode(generation), time.monotonic() + seconds
        while time.monotonic() < ends:
            began = time.monotonic()
            if await self._is_live():
                self.livez[mode].append(time.monotonic() - began)
            else:
                self.unanswered += 1
            await asyncio.sleep(PROBE)
        self.memory.append(psutil.Process(self.server.process.pid).memory_full_info().uss >> 10)

    async def _is_live(self) -> bool:
        connection = Connection(Target.parse(f"unix:{self.control.directory}/control.sock"))
        try:
            async with asyncio.timeout(PATIENCE):
                await connection.open()
                await connection.send(b"GET /livez HTTP/1.1\r\nHost: stillup\r\n\r\n")
                await connection.answer()
        except (NoAnswer, TimeoutError):
            return False
        finally:
            connection.close()
        return True

    def faults(self) -> list[str]:
        """What is not as it has to be."""
        report, found = self.load.report, []
        if report.failed or report.closed:
            found.append(f"{report.failed} requests failed, {report.closed} connections were closed")
            found += [f"  {one.at:.3f} s, {one.kind}: {one.phase}: {one.reason}" for one in report.failures[:10]]
        if self.unanswered:
            found.append(f"/livez was not answered {self.unanswered} times")
        return found

    def slow(self) -> list[str]:
        """What takes longer beside a worker that misbehaves than it may."""
        found = []
        for what, times, factor, of in (
            ("/livez, p99,", self.livez, LIVEZ, _p99),
            ("a reload, median,", self.reloads, RELOAD, statistics.median),
        ):
            if not times[SILENT]:
                continue
            base = max(of(times[SILENT]), LEAST)
            for mode, measured in times.items():
                if measured and of(measured) > factor * base:
                    found.append(f"{what} takes {of(measured):.4f} s beside '{mode}', {base:.4f} s beside '{SILENT}'")
        quarter = len(self.memory) // 4
        if quarter:
            first, last = (int(statistics.median(part)) for part in (self.memory[:quarter], self.memory[-quarter:]))
            if last > first * MEMORY:
                found.append(f"the supervisor grew from {first} to {last} KiB")
        return found

    def __str__(self) -> str:
        report = self.load.report
        count = sum(map(len, self.reloads.values()))
        seen = f"{report.requests} requests, {report.failed} failed, {report.closed} closed"
        memory = f"supervisor {self.memory[0]} to {self.memory[-1]} KiB"
        lines = [f"{report.duration:.0f} s: {count} reloads, {seen}; {memory}"]
        for mode in self.livez:
            took = statistics.median(self.reloads[mode]) if self.reloads[mode] else 0.0
            lines.append(f"  {mode:11} /livez p99 {_p99(self.livez[mode]) * 1000:7.1f} ms, reload {took:.2f} s")
        return "\n".join(lines)


def _p99(times: Sequence[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)] if times else 0.0


async def measure(modes: Sequence[str], reloads: int, dwell: float, workers: int = WORKERS, first: int = 1) -> Hostile:
    """Start a service of which one of ``workers`` misbehaves in these ways, put load on it, and reload it.

    It begins to misbehave in the generation ``first``.

    Raises:
        ServerFailed: it cannot be started, or a reload fails.
    """
    stillup = command("stillup")
    if stillup is None:
        raise ServerFailed("stillup is not installed beside this Python")
    with TemporaryDirectory(prefix="hostile-") as directory:
        control = Control(f"{directory}/run")
        # Which the supervisor and its workers inherit.
        os.environ.update(HOSTILE=",".join(modes), HOSTILE_FIRST=str(first))
        options = (
            f"run benchmarks.hostile_app:app --bind 127.0.0.1:0 --workers {workers} --name hostile --no-access-log "
            f"--runtime-dir {control.directory} --app-dir {Path(__file__).parent.parent} --health-path /healthz "
            "--probation 0 --drain-timeout 5 --drain-timeout-stream 5 --hang-timeout 5"
        )
        async with started([str(stillup), *options.split()]) as server:
            target = await control.serving(server)
            async with Load(target, MIX) as load:
                await load.wait_every_client()
                hostile = Hostile(control, server, load, modes, first)
                try:
                    await hostile.run(reloads, dwell)
                    await load.stop()
                except (NoAnswer, TimeoutError) as error:
                    raise server.failed(f"{error or 'did not answer in time'}") from error
                finally:
                    with suppress(NoAnswer):
                        await load.stop()
            server.check()
    return hostile


async def main(options: argparse.Namespace) -> int:
    """Run for as long as was asked and print what it saw; 1 if anything was not as it has to be."""
    chosen = options.mode or [mode for mode in MODES if mode != SILENT]
    modes = [word for mode in chosen for word in (SILENT, mode)]
    try:
        dwell = 60 * options.minutes / (options.reloads + 1)
        hostile = await measure(modes, options.reloads, dwell, first=ROLLOUTS)
    except (ServerFailed, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    print(hostile)
    wrong = hostile.faults() + hostile.slow()
    print("\n".join(wrong) or "nobody noticed anything")
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--reloads", type=int, default=50)
    parser.add_argument("--mode", action="append", choices=[mode for mode in MODES if mode != SILENT])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(main(_options())))
