"""Prove for every parser, loop, transport and think time that nobody can tell a reload: `python -m benchmarks.drop`.

Each combination starts stillup with two workers and reloads it under a load of every kind. Exits with 1 at the first
loss: a failed request, a closed connection, or a reload that did not move everybody soon.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.connection import NoAnswer
from benchmarks.control import Control, Exits
from benchmarks.load import DEADLINE, MIXED, Load, Mix, Pace, Report, Target
from benchmarks.server import ServerFailed, command, run, started

APP = "benchmarks.app:app"
WORKERS = 2
RELOADS = 20
SOON = 2.0
"""Seconds from the cut-over until the old processes are gone and every kept connection has another answer."""
MIX = replace(MIXED, pace=Pace(slow=0.2, upload=0.25, stream=0.3))
"""The longest requests fit into SOON: the old generation answers those that it has to their end."""
LONG = frozenset({"slow", "upload", "stream", "chunked", "early"})
"""The kinds that are idle for a moment only: their next request takes as long as the one that was under way."""
FAILURES_SHOWN = 10


class Noticed(AssertionError):
    """A client could tell that there was a reload; the text says how."""

    def __init__(self, what: str, report: Report) -> None:
        lines = [f"{what}; {report}"]
        lines += [f"  {f.at:.3f} s, {f.kind}: {f.phase}: {f.reason}" for f in report.failures[:FAILURES_SHOWN]]
        closed = (f"{tally.closed} {name}" for name, tally in report.kinds.items() if tally.closed)
        if report.closed:
            lines.append(f"  closed: {', '.join(closed)}")
        super().__init__("\n".join(lines))
        self.report = report


async def prove(
    target: Target,
    reload: Callable[[], Awaitable[str]],
    pids: Callable[[], Awaitable[Collection[int]]],
    mix: Mix = MIX,
    *,
    reloads: int = RELOADS,
    soon: float = SOON,
    patience: float = DEADLINE,
    seed: int = 0,
) -> Report:
    """Reload under load and demand that no client notices, and that the reloads are real.

    `reload` returns at the cut-over, with the `x-gen` of the generation that serves now: the one before, if it was
    rejected. `pids` are the processes of the workers. Within `soon` seconds of each cut-over the old ones must be gone
    and each kept client must have an answer of the new generation, at the end on the connection that it began with.
    `patience` is for what has no such promise: those whose requests are LONG, and the end of the load.

    Raises:
        Noticed: something was lost, or moved too late.
        TimeoutError: the load came to a halt.
    """
    async with Load(target, mix, seed=seed) as load:
        await load.wait_every_client(deadline=patience)
        serving = newest(load.report)
        seen = [serving]
        for number in range(1, reloads + 1):
            with Exits(await pids()) as exits:
                generation = await reload()
                cut = time.monotonic()
                try:
                    if generation != serving:
                        await exits.all(soon)
                    left = soon - (time.monotonic() - cut)
                    await load.every_kept_connection_answers(generation, left, but=LONG)
                    await load.every_kept_connection_answers(generation, patience)
                except TimeoutError as error:
                    raise Noticed(f"reload {number}: {error}", load.report) from None
            if generation != serving:
                seen.append(serving := generation)
            demand_nothing_lost(f"reload {number}", load.report)
            await load.wait_every_client(deadline=patience)
        report = await load.stop(deadline=patience)
    demand_nothing_lost(f"{reloads} reloads", report)
    _demand_real(seen, mix, report)
    return report


def newest(report: Report) -> str:
    """The generation that was the last to give its first answer."""
    return next(reversed(report.generations), "")


def demand_nothing_lost(when: str, report: Report) -> None:
    """Raise Noticed if a request failed or a kept client did not stay on its connection."""
    if report.failed or report.closed or report.reconnected:
        raise Noticed(when, report)


def _demand_real(generations: Sequence[str], mix: Mix, report: Report) -> None:
    """Raise Noticed if the report could look like that without all that was to be proven."""
    if idle := [name for name, tally in report.kinds.items() if not tally.requests]:
        raise Noticed(f"no request of {', '.join(idle)}", report)
    if set(report.generations) != set(generations):
        raise Noticed(f"answers of {', '.join(report.generations)}, not of {', '.join(generations)}", report)
    if report.crossed != (wanted := mix.kept * (len(generations) - 1)):
        raise Noticed(f"{report.crossed} connections crossed, not {wanted}", report)


@dataclass(frozen=True)
class Combination:
    """One place in the matrix; `think` is in milliseconds."""

    http: str
    loop: str
    transport: str
    think: float

    def __str__(self) -> str:
        return f"{self.http:9} {self.loop:7} {self.transport:4} think {self.think:g} ms"

    async def prove(self, stillup: Path, reloads: int, seed: int) -> Report:
        """Start stillup in this way, and prove it."""
        with TemporaryDirectory(prefix="drop-") as directory:
            bind = "127.0.0.1:0" if self.transport == "tcp" else f"unix:{directory}/app.sock"
            control = Control(f"{directory}/run")
            options = (
                f"run {APP} --bind {bind} --workers {WORKERS} --name drop --runtime-dir {control.directory} "
                f"--http {self.http} --loop {self.loop} --health-path /healthz --no-access-log"
            )

            async def reload() -> str:
                try:
                    rollout = await control.reload()
                except NoAnswer as error:
                    raise server.failed(f"did not reload: {error}") from None
                return str(rollout["generation"])

            async with started([str(stillup), *options.split()]) as server:
                target = await control.serving(server)
                mix = replace(MIX, think=self.think / 1000)
                report = await prove(target, reload, control.pids, mix, reloads=reloads, seed=seed)
                server.check()
        return report


AXES: dict[str, Sequence[str]] = {
    "http": ("httptools", "h11"),
    "loop": ("uvloop", "asyncio"),
    "transport": ("tcp", "unix"),
    "think": ("10", "0"),
}


async def main(options: argparse.Namespace) -> int:
    """Prove the chosen combinations; 1 at the first that does not hold."""
    stillup = command("stillup")
    if stillup is None:
        print(f"stillup is not installed in {Path(sys.executable).parent}", file=sys.stderr)
        return 1
    chosen = [getattr(options, axis) or values for axis, values in AXES.items()]
    requests = crossed = reloads = 0
    for number in range(options.runs):
        for http, loop, transport, think in itertools.product(*chosen):
            combination = Combination(http, loop, transport, float(think))
            try:
                report = await combination.prove(stillup, options.reloads, number)
            except (Noticed, ServerFailed, NoAnswer, TimeoutError) as error:
                print(f"{combination}: {error}", flush=True)
                return 1
            requests += report.requests
            crossed += report.crossed
            reloads += options.reloads
            print(
                f"{combination}: {options.reloads} reloads, {report}, {report.crossed} crossed, "
                f"longest time without answer {report.longest_gap * 1000:.0f} ms, {report.duration:.0f} s",
                flush=True,
            )
    print(f"total: {reloads} reloads, 0 of {requests} requests failed, 0 closed, 0 reconnected, {crossed} crossed")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drop", description=__doc__)
    parser.add_argument("--reloads", type=int, default=RELOADS, help="of each combination")
    parser.add_argument("--runs", type=int, default=1, help="of the whole, each with another seed")
    for axis in ("http", "loop", "transport"):
        parser.add_argument(f"--{axis}", action="append", choices=AXES[axis])
    parser.add_argument("--think", action="append", metavar="MS", help="0 and 10 by default")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(main(_options())))
