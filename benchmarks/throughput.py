"""Requests a second of stillup beside uvicorn, while nothing is reloaded: `python -m benchmarks.throughput`.

Both serve the same application with as many workers all the time, and are measured in turn by `wrk`: an idle one takes
nothing from the other. Keep-alive first, then a connection for each request; then how evenly connections are spread.
"""

import argparse
import asyncio
import re
import shutil
import statistics
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.connection import Connection, NoAnswer, Target
from benchmarks.control import Control
from benchmarks.peers import free_port
from benchmarks.request_types import GET_ONCE
from benchmarks.server import Server, ServerFailed, command, run, started

APP = "benchmarks.app:app"
WARM_UP = 1  # second, of each server in each mode
SHARED, AT_ONCE = 4000, 16  # short connections whose workers are counted, and how many are open together
MODES = {"keep-alive": (), "a connection a request": ("-H", "Connection: close")}
WRK_MISSING = "wrk is not on PATH; Debian and Ubuntu have it as the package wrk (apt-get install wrk)"
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)$", re.MULTILINE)
_LOSS = re.compile(r"^\s*(?:Socket errors|Non-2xx).*$", re.MULTILINE)


def warn_of_autogroups() -> None:
    """Say so if processors are shared among sessions (sched(7)), of which a stillup has many, and wrk has one."""
    try:
        is_on = AUTOGROUP.read_text().strip() == "1"
    except OSError:  # this kernel has none
        return
    if is_on:
        print(
            "warning: sched_autogroup_enabled is 1: who has more sessions takes the processors from wrk,",
            file=sys.stderr,
        )
        print("and seems slower; 'sysctl kernel.sched_autogroup_enabled=0' as long as this runs", file=sys.stderr)


@dataclass(frozen=True)
class Contestant:
    """A running server, and where it serves."""

    name: str
    server: Server
    target: Target

    async def rate(self, wrk: str, connections: int, seconds: int, arguments: Sequence[str]) -> float:
        """Requests a second, as wrk counts them; one that fails makes them worth nothing."""
        argv = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", *arguments, f"http://{self.target}/"]
        process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE, stderr=STDOUT)
        try:
            output = (await process.communicate())[0].decode()
        finally:
            if process.returncode is None:
                process.kill()
        self.server.check()
        rate, loss = _RATE.search(output), _LOSS.search(output)
        if process.returncode or rate is None or loss is not None:
            raise self.server.failed(f"was not measured: {' '.join(argv)}\n{output}")
        return float(rate[1])

    async def shares(self) -> Counter[str]:
        """How many of SHARED short connections each worker answered, by its process."""
        workers: Counter[str] = Counter()
        left = iter(range(SHARED))

        async def client() -> None:
            for _ in left:
                connection = Connection(self.target)
                try:
                    await connection.open()
                    await connection.send(GET_ONCE)
                    workers[(await connection.answer()).headers["x-pid"]] += 1
                finally:
                    connection.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(client())
        return workers


@dataclass(frozen=True)
class Rounds:
    """What each round measured of both, in requests a second."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def __str__(self) -> str:
        rows = [(f"{n}", *row) for n, row in enumerate(zip(self.ours, self.theirs, self.ratios, strict=True), 1)]
        middle = (statistics.median(self.ours), statistics.median(self.theirs))
        rows.append(("median", *middle, statistics.median(self.ratios)))
        lines = [f"{'round':>8} {'stillup':>10} {'uvicorn':>10} {'ratio':>8}"]
        lines += [f"{name:>8} {ours:10.0f} {theirs:10.0f} {ratio:8.3f}" for name, ours, theirs, ratio in rows]
        return "\n".join([*lines, f"ratio of the medians {middle[0] / middle[1]:.3f}"])


async def compare(ours: Contestant, theirs: Contestant, wrk: str, options: argparse.Namespace) -> None:
    """Measure both in turn, in each mode, and print it."""
    for mode, arguments in MODES.items():
        print(f"{mode}, {options.connections} connections, {options.seconds} s a round", flush=True)
        rates: dict[str, list[float]] = {ours.name: [], theirs.name: []}
        for contestant in (ours, theirs):
            await contestant.rate(wrk, options.connections, WARM_UP, arguments)
        for number in range(options.rounds):
            # Who is second finds another machine, warmer or busier: they take turns at it.
            for contestant in (ours, theirs) if number % 2 == 0 else (theirs, ours):
                rate = await contestant.rate(wrk, options.connections, options.seconds, arguments)
                rates[contestant.name].append(rate)
        print(Rounds(rates[ours.name], rates[theirs.name]), flush=True)
    print(f"{SHARED} short connections, {AT_ONCE} at a time, between the workers")
    for contestant in (ours, theirs):
        print(f"{contestant.name:>8} {_share(await contestant.shares(), options.workers)}", flush=True)


def _share(workers: Counter[str], expected: int) -> str:
    counts = sorted(workers.values(), reverse=True) + [0] * (expected - len(workers))
    uneven = f"{counts[0] / counts[-1]:.2f}" if counts[-1] else "without end"
    return f"{' '.join(map(str, counts))}, largest/smallest {uneven}"


async def measure(stillup: Path, uvicorn: Path, wrk: str, options: argparse.Namespace) -> None:
    """Start both and compare them."""
    port = free_port()
    same = f"--workers {options.workers} --http {options.http} --loop {options.loop} --no-access-log {APP}"
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory(prefix="bench-"))
        control = Control(f"{directory}/run")
        run_options = f"run {same} --bind 127.0.0.1:0 --name bench --runtime-dir {control.directory}"
        ours = await stack.enter_async_context(started([str(stillup), *run_options.split()]))
        theirs = await stack.enter_async_context(started([str(uvicorn), *f"{same} --port {port}".split()]))
        target = Target.parse(f"127.0.0.1:{port}")
        await theirs.serves(target)
        contestants = Contestant("stillup", ours, await control.serving(ours)), Contestant("uvicorn", theirs, target)
        try:
            await compare(*contestants, wrk, options)
        except* NoAnswer as errors:
            raise ServerFailed(f"a short connection got no answer: {errors.exceptions[0]}") from None


async def main(options: argparse.Namespace) -> int:
    """Run the comparison; 1 if it could not run."""
    stillup, uvicorn, wrk = command("stillup"), command("uvicorn"), shutil.which("wrk")
    if stillup is None or uvicorn is None:
        print(f"stillup and uvicorn are not both installed in {Path(sys.executable).parent}", file=sys.stderr)
        return 1
    if wrk is None:
        print(WRK_MISSING, file=sys.stderr)
        return 1
    warn_of_autogroups()
    try:
        await measure(stillup, uvicorn, wrk, options)
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3, help="of each round, for each server")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--http", default="auto", choices=["auto", "h11", "httptools"])
    parser.add_argument("--loop", default="auto", choices=["auto", "asyncio", "uvloop"])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(main(_options())))
