"""Whether this tree is slower or larger than a commit before: `python -m benchmarks.before COMMIT`.

Each round starts this tree, this tree once more, and the commit, all installed from their sources with the same
dependencies. They are measured in turn, a second at a time, so that what the machine does to one it does to all; the
second copy of this tree says what differs between two starts of the same code. Measured are requests a second over kept
connections, and with a connection for each; the time of a reload to its cut-over; and the memory of supervisor and
workers. The processor time of the workers for a request says the same as the rates where others use the machine, too.
A figure's ratio is the middle of the rounds', with its 95 % bounds (`bounds`).

With `--together` requests alone are measured, of all trees at the same time: what the machine does to one it does to
all. Where others use it, rounds differ a third as much as by turns. Of several workers each start has its clients
spread anew by the kernel, which makes more of a difference than the code: `--workers 1` has none of that.

Two starts of the same code differ by some percent, for as long as they run: many rounds of few slices say more in the
same time than few rounds of many.
"""

import argparse
import asyncio
import math
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.control import Control
from benchmarks.server import ROOT, ServerFailed, run, started
from benchmarks.throughput import APP, MODES, WARM_UP, WRK_MISSING, Contestant, warn_of_autogroups

RELOADS = 3  # of each contestant, in each round
GONE = 30.0  # seconds until the workers before a reload have left
LIMIT = 0.03  # so much worse a bound may be
TIME, MEMORY_HELD, MEMORY_WORKERS = "a reload", "supervisor", "workers"
RATES = tuple(MODES)
COSTS = {mode: f"processor, {mode}" for mode in MODES}
UNITS = (
    dict.fromkeys(RATES, "requests/s")
    | dict.fromkeys(COSTS.values(), "us")
    | {TIME: "s", MEMORY_HELD: "MB", MEMORY_WORKERS: "MB"}
)

Round = Mapping[str, Mapping[str, float]]
"""Each figure of each tree, by its name."""


@dataclass(frozen=True)
class Installed:
    """A tree that was installed into an environment of its own."""

    name: str
    python: Path

    @property
    def stillup(self) -> str:
        return str(self.python.with_name("stillup"))


@dataclass(frozen=True)
class Running:
    """One that serves."""

    name: str
    control: Control
    contestant: Contestant

    async def memory(self) -> dict[str, float]:
        """Megabytes of its supervisor and of all its workers, without what is mapped from files.

        Files are shared with the other copy of this tree, which would count for less than the commit alone.
        """
        workers = await self.control.pids()
        return {
            MEMORY_HELD: _own_memory(self.contestant.server.process.pid),
            MEMORY_WORKERS: sum(map(_own_memory, workers)),
        }

    async def processor_time(self) -> float:
        """Microseconds that its workers have used so far."""
        used = [psutil.Process(pid).cpu_times() for pid in await self.control.pids()]
        return 1e6 * sum(one.user + one.system for one in used)

    async def reloaded(self) -> float:
        """Seconds of one reload to its cut-over; those before have left when this returns."""
        begun = time.monotonic()
        await self.control.reload()
        taken = time.monotonic() - begun
        await self.control.until(lambda status: len(status["generations"]) == 1, GONE, "one generation is there")
        return taken


def _own_memory(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) / 1024


def installed(folder: Path, commit: str) -> list[Installed]:
    """Install this tree as it is on the disk and as it was at that commit, with the same dependencies.

    Raises:
        ServerFailed: git or pip failed; the text has what it said.
    """
    before = folder / "before"
    before.mkdir()
    _call("git", "-C", str(ROOT), "archive", "--output", str(folder / "before.tar"), commit)
    _call("tar", "-C", str(before), "-xf", str(folder / "before.tar"))
    found: list[Installed] = []
    same = folder / "same.txt"
    for name, tree in (("now", ROOT), (commit, before)):
        print(f"installing {name} ...", file=sys.stderr, flush=True)
        python = folder / f"venv-{len(found)}" / "bin" / "python"
        _call(sys.executable, "-m", "venv", str(python.parent.parent))
        constraint = ["-c", str(same)] if found else []
        _call(str(python), "-m", "pip", "install", "--quiet", *constraint, str(tree))
        found.append(Installed(name, python))
        freeze = _call(str(python), "-m", "pip", "freeze")
        same.write_text("".join(f"{line}\n" for line in freeze.splitlines() if not line.startswith("stillup")))
    return found


def _call(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerFailed(f"{' '.join(argv)} exited with {done.returncode}\n{done.stderr}")
    return done.stdout


async def measure(trees: Sequence[Installed], turn: int, wrk: str, options: argparse.Namespace) -> Round:
    """Start one of each and measure them in turn; each figure of each."""
    figures: dict[str, dict[str, float]] = defaultdict(dict)
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        running: list[Running] = []
        for tree in trees:
            control = Control(str(directory / f"run-{len(running)}"))
            same = f"run {APP} --workers {options.workers} --no-access-log --bind 127.0.0.1:0"
            argv = [tree.stillup, *same.split(), "--name", f"b{len(running)}", "--runtime-dir", control.directory]
            server = await stack.enter_async_context(started(argv))
            contestant = Contestant(tree.name, server, await control.serving(server))
            running.append(Running(tree.name, control, contestant))
        # Who is first finds another machine than who is last: they take turns at it.
        order = [running[(turn + n) % len(running)] for n in range(len(running))]
        for mode, arguments in MODES.items():
            rates: dict[str, list[float]] = defaultdict(list)
            used: dict[str, float] = defaultdict(float)

            async def slice_of(each: Running, arguments: Sequence[str] = arguments) -> tuple[float, float]:
                before = await each.processor_time()
                rate = await each.contestant.rate(wrk, options.connections, 1, arguments)
                return rate, await each.processor_time() - before

            for each in order:
                await each.contestant.rate(wrk, options.connections, WARM_UP, arguments)
            for number in range(options.slices):
                turns = order if number % 2 else order[::-1]
                if options.together:
                    found = await asyncio.gather(*map(slice_of, turns))
                else:
                    found = [await slice_of(each) for each in turns]
                for each, (rate, processor_time) in zip(turns, found, strict=True):
                    rates[each.name].append(rate)
                    used[each.name] += processor_time
            for name, measured in rates.items():
                figures[name][mode] = statistics.mean(measured)
                figures[name][COSTS[mode]] = used[name] / sum(measured)
        if options.together:
            return figures
        for each in order:
            figures[each.name].update(await each.memory())
        times: dict[str, list[float]] = defaultdict(list)
        for _ in range(RELOADS):
            for each in order:
                times[each.name].append(await each.reloaded())
        for name, taken in times.items():
            figures[name][TIME] = statistics.median(taken)
    return figures


def bounds(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The middle of the ratios, and what it lies between with 95 %.

    By Wilcoxon's signed-rank test, for which the rounds are independent, and as far from the middle one way as the
    other: the median of the means of each two ratios (Hodges and Lehmann), and two of these means in their order. Fewer
    than six ratios have no such bounds; then they are the least and the largest.
    """
    logs, count = [math.log(ratio) for ratio in ratios], len(ratios)
    means = sorted((one + other) / 2 for number, one in enumerate(logs) for other in logs[number:])
    sums = [1]  # by the sum, how many sets of the ranks 1 to count have it
    for rank in range(1, count + 1):
        sums = [a + b for a, b in zip([*sums, *[0] * rank], [*[0] * rank, *sums], strict=True)]
    outside = tail = 0
    while (tail := tail + sums[outside]) <= 0.025 * 2**count:
        outside += 1
    cut = max(0, outside - 1)
    return math.exp(statistics.median(means)), math.exp(means[cut]), math.exp(means[-1 - cut])


def told(rounds: Sequence[Round], against: str, limit: float) -> Iterator[tuple[bool, str]]:
    """Of each figure, whether its bound holds, and the line that says so."""
    for figure, unit in UNITS.items():
        if figure not in rounds[0][against]:
            continue
        middle, low, high = bounds([each["now"][figure] / each[against][figure] for each in rounds])
        holds = low >= 1 - limit if figure in RATES else high <= 1 + limit
        value = statistics.median(each["now"][figure] for each in rounds)
        yield holds, f"{figure:>22} {value:10.2f} {unit:10} {middle:7.3f}  {low:.3f} to {high:.3f}"


async def main(options: argparse.Namespace) -> int:
    """Run the comparison; 1 if it could not run, or a bound is more than LIMIT worse."""
    wrk = shutil.which("wrk")
    if wrk is None:
        print(WRK_MISSING, file=sys.stderr)
        return 1
    warn_of_autogroups()
    rounds: list[Round] = []
    try:
        with TemporaryDirectory(prefix="before-") as folder:
            now, before = installed(Path(folder), options.commit)
            trees = [now, Installed("now, once more", now.python), before]
            for number in range(options.rounds):
                rounds.append(await measure(trees, number, wrk, options))
                print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 1
    worse = 0
    for tree in trees[1:]:
        print(
            f"beside {tree.name}, {options.workers} workers, {options.connections} connections, rounds: {len(rounds)}"
        )
        for holds, line in told(rounds, tree.name, options.limit):
            judged = "" if holds or tree is not before else f"  worse than {options.limit:.0%}"
            worse += bool(judged)
            print(line + judged)
    return int(worse > 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.before", description=__doc__)
    parser.add_argument("commit", help="what is compared with, as git names it")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--slices", type=int, default=4, help="seconds for each tree and mode in each round (4)")
    parser.add_argument("--together", action="store_true", help="requests alone, of all trees at the same time")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=LIMIT, help="so much worse a bound may be (0.03)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(main(_options())))
