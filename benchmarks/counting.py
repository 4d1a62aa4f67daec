"""What counting costs: requests a second of stillup with its figures and without: `python -m benchmarks.counting`.

Without is a copy of stillup whose workers count no request. Both serve the same application all the time and are
measured in turn by `wrk`, over kept connections, where each request is cheapest and counting so the largest part of it;
and by the processor time that their workers took for a request, which other work on the machine disturbs less.
"""

import argparse
import shutil
import statistics
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.control import Control
from benchmarks.server import ROOT, ServerFailed, command, run, started
from benchmarks.throughput import APP, WARM_UP, WRK_MISSING, Contestant

CHANGES = (
    ("        self.began = perf_counter_ns()\n", "        self.began = 1\n"),
    ("            took = perf_counter_ns() - began\n            cells = self.cells\n", ""),
    ('            first = _OF_STATUS[message["status"]]\n', ""),
    ("            cells[first if took <= _LEAST else first + bisect_left(_BOUNDS, took)] += 1\n", ""),
    ("            cells[first + _SUM] += took\n            if type", "            if type"),
    ('            if (body := message.get("body")) and self.cells is not None:\n', "            if False:\n"),
)
"""What is left notes of each answer whether it is a stream, which a drain has to know."""
LIMIT = 0.97  # of the requests that are answered without counting


@dataclass(frozen=True)
class Measured:
    """One round of one of them."""

    rate: float
    """Requests a second."""
    cost: float
    """Microseconds of the workers' processor time for a request."""


def uncounted(folder: Path) -> Path:
    """Put a copy of stillup into `folder` that counts no request; where it can be imported from."""
    shutil.copytree(ROOT / "supervisor", folder / "supervisor")
    file = folder / "supervisor/asgi/answers.py"
    text = file.read_text()
    for old, new in CHANGES:
        if text.count(old) != 1:
            raise ServerFailed(f"{file.name} has changed: {old!r} is not in it once")
        text = text.replace(old, new)
    file.write_text(text)
    return folder


async def measure(stillup: Path, wrk: str, options: argparse.Namespace) -> float:
    """Measure both in turn and print it; the median of the rounds' ratios."""
    run_options = f"run --workers {options.workers} --http {options.http} --loop {options.loop} --no-access-log {APP}"
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        without = options.against or uncounted(directory / "copy")
        contestants = []
        for name, path in (("counting", ROOT), ("without", without)):
            control = Control(str(directory / name))
            where = f"--bind 127.0.0.1:0 --name {name} --runtime-dir {control.directory}"
            argv = ["env", f"PYTHONPATH={path}:{ROOT}", str(stillup), *run_options.split(), *where.split()]
            server = await stack.enter_async_context(started(argv))
            contestants.append(Contestant(name, server, await control.serving(server)))
        for contestant in contestants:
            await contestant.rate(wrk, options.connections, WARM_UP, ())
        ratios, costs = [], []
        print(f"{'round':>8} {'counting':>10} {'without':>10} {'ratio':>8} {'us':>8} {'us':>8} {'ratio':>8}")
        for number in range(1, options.rounds + 1):
            # Who is second finds another machine, warmer or busier: they take turns at it.
            found = {}
            for contestant in contestants if number % 2 else reversed(contestants):
                found[contestant.name] = await _round(contestant, wrk, options)
            ours, theirs = found["counting"], found["without"]
            ratios.append(ours.rate / theirs.rate)
            costs.append(theirs.cost / ours.cost)
            rates = f"{ours.rate:10.0f} {theirs.rate:10.0f} {ratios[-1]:8.3f}"
            print(f"{number:8} {rates} {ours.cost:8.2f} {theirs.cost:8.2f} {costs[-1]:8.3f}", flush=True)
    print(f"median of the ratios: requests a second {statistics.median(ratios):.3f}, ", end="")
    print(f"processor time {statistics.median(costs):.3f}; at least {LIMIT}")
    return statistics.median(ratios)


async def _round(contestant: Contestant, wrk: str, options: argparse.Namespace) -> Measured:
    before = _processor_time(contestant)
    rate = await contestant.rate(wrk, options.connections, options.seconds, ())
    return Measured(rate, 1e6 * (_processor_time(contestant) - before) / (rate * options.seconds))


def _processor_time(contestant: Contestant) -> float:
    """Seconds that the workers' processes have computed, to the nanosecond (proc_pid_schedstat(5))."""
    workers = psutil.Process(contestant.server.process.pid).children()
    return sum(int(Path(f"/proc/{worker.pid}/schedstat").read_text().split()[0]) for worker in workers) / 1e9


async def main(options: argparse.Namespace) -> int:
    """Run the comparison; 1 if it could not run, or counting costs too much."""
    stillup, wrk = command("stillup"), shutil.which("wrk")
    if stillup is None or wrk is None:
        print(WRK_MISSING if wrk is None else "stillup is not installed", file=sys.stderr)
        return 1
    try:
        return int(await measure(stillup, wrk, options) < LIMIT)
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counting", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=int, default=1, help="of each round, for each of the two")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--http", default="httptools", choices=["h11", "httptools"])
    parser.add_argument("--loop", default="uvloop", choices=["asyncio", "uvloop"])
    parser.add_argument("--against", type=Path, help="a directory with another supervisor/ instead of the copy")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(main(_options())))
