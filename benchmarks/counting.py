"""What counting costs: requests a second of stillup with its figures and without: `python -m benchmarks.counting`.

Without is a copy of stillup whose workers count no request. Both serve the same application all the time and are
measured in turn by `wrk`, over kept connections, where each request is cheapest and counting so the largest part of it.
The application is Starlette's, as services have it, unless another is given: `benchmarks.app:app` does nothing at all.
"""

import argparse
import shutil
import statistics
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.control import Control
from benchmarks.server import ROOT, ServerFailed, command, run, started
from benchmarks.throughput import WARM_UP, WRK_MISSING, Contestant
from tests.system.mutations import COUNTS_NOTHING, Stale, mutated

APP = "app_example.main:app"
LIMIT = 0.97  # of the requests that are answered without counting


def uncounted(folder: Path) -> Path:
    """Put a copy of stillup into `folder` that counts no request; where it can be imported from."""
    try:
        return Path(mutated(folder, *COUNTS_NOTHING)["PYTHONPATH"])
    except Stale as error:
        raise ServerFailed(f"counting has changed: {error}") from error


async def measure(stillup: Path, wrk: str, options: argparse.Namespace) -> list[float]:
    """Start both and measure them in turn; the ratio of each round."""
    same = f"--workers {options.workers} --http {options.http} --loop {options.loop} --no-access-log {options.app}"
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        without = options.against or uncounted(directory)
        contestants = []
        for name, path in (("counting", ROOT), ("without", without)):
            control = Control(str(directory / name))
            where = f"--bind 127.0.0.1:0 --name {name} --runtime-dir {control.directory}"
            argv = ["env", f"PYTHONPATH={path}:{ROOT}", str(stillup), "run", *same.split(), *where.split()]
            server = await stack.enter_async_context(started(argv))
            contestants.append(Contestant(name, server, await control.serving(server)))
        for contestant in contestants:
            await contestant.rate(wrk, options.connections, WARM_UP, ())
        ratios = []
        for number in range(options.rounds):
            # Who is second finds another machine, warmer or busier: they take turns at it.
            rates = {}
            for contestant in reversed(contestants) if number % 2 else contestants:
                rates[contestant.name] = await contestant.rate(wrk, options.connections, options.seconds, ())
            ratios.append(rates["counting"] / rates["without"])
            print(f"{rates['counting']:10.0f} {rates['without']:10.0f} {ratios[-1]:8.3f}", flush=True)
    return ratios


async def main(options: argparse.Namespace) -> int:
    """Run the comparison; 1 if it could not run, or counting costs too much."""
    stillup, wrk = command("stillup"), shutil.which("wrk")
    if stillup is None or wrk is None:
        print(WRK_MISSING if wrk is None else "stillup is not installed", file=sys.stderr)
        return 1
    print(f"{options.app}, {options.workers} workers, {options.connections} connections, {options.starts} starts")
    print(f"{'counting':>10} {'without':>10} {'ratio':>8}")
    ratios: list[float] = []
    try:
        for _ in range(options.starts):
            ratios += await measure(stillup, wrk, options)
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 1
    median = statistics.median(ratios)
    print(f"median of {len(ratios)} ratios {median:.3f}, at least {LIMIT}")
    return int(median < LIMIT)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counting", description=__doc__)
    parser.add_argument("app", nargs="?", default=APP)
    parser.add_argument("--starts", type=int, default=10, help="of both: processes of the same code differ")
    parser.add_argument("--rounds", type=int, default=7, help="of each start")
    parser.add_argument("--seconds", type=int, default=1, help="of each round, for each of the two")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--http", default="httptools", choices=["h11", "httptools"])
    parser.add_argument("--loop", default="uvloop", choices=["asyncio", "uvloop"])
    parser.add_argument("--against", type=Path, help="a directory with another supervisor/ instead of the copy")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(main(_options())))
