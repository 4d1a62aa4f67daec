"""How long requests take while a server reloads, beside when it does not: `python -m benchmarks.reload_tail`.

A FastAPI app under 32 clients, of which 28 keep their connections; each waits 10 ms on the average between two
requests. Each round starts each server in turn, and reloads it once. Taken are the 99th percentile of the requests that
end in two quiet seconds, that of those that end in the six seconds from SIGHUP on, and the longest of these. A request
that fails takes no time; it is counted, as connections are that the server closes, over all of the load. Told are the
medians of the rounds. stillup asks each new worker for a page before it serves (`--health-path`).
"""

import argparse
import asyncio
import json
import signal
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.load import Load, Mix, Target
from benchmarks.peers import free_port
from benchmarks.server import ServerFailed, command, run, started

APP = """
import os
import fastapi

GENERATION = os.environ.get("STILLUP_GENERATION") or str(os.getpid())
app = fastapi.FastAPI()


@app.get("/")
async def index():
    return fastapi.Response("hello", headers={"x-gen": GENERATION})
"""
MIX = Mix(keepalive=28, fresh=4, think=0.01)  # those that connect anew come to each worker soon
SETTLED = 1.0  # seconds until the workers are there that have not answered yet
QUIET = 2.0  # seconds
IN_A_RELOAD = 6.0  # seconds; uvicorn takes the longest, one worker after the other
DEADLINE = 30.0
WORKERS = (2, 4)


@dataclass(frozen=True)
class Setup:
    """A server as it is started, and whether each of its new workers shows itself as one."""

    name: str
    words: str
    by_worker: bool = True

    def argv(self, workers: int, port: int, folder: str) -> list[str]:
        """The words that start it with the app that is in a folder."""
        place = {"workers": workers, "port": port, "folder": folder}
        program, *words = self.words.format(**place).split()
        path = command(program)
        if path is None:
            raise ServerFailed(f"{program} is not installed in {Path(sys.executable).parent}")
        return [str(path), *words]


_STILLUP = (
    "stillup run main:app --workers {workers} --bind 127.0.0.1:{port} --no-access-log --health-path / --probation 0 "
    "--name tail --app-dir {folder} --runtime-dir {folder}/run"
)
SETUPS = (
    Setup("uvicorn", "uvicorn main:app --workers {workers} --port {port} --no-access-log --app-dir {folder}"),
    Setup(
        "gunicorn",
        "gunicorn main:app -k asgi -w {workers} -b 127.0.0.1:{port} --no-control-socket --chdir {folder}",
    ),
    Setup(
        "granian",
        "granian main:app --interface asgi --workers {workers} --host 127.0.0.1 --port {port} --no-access-log "
        "--working-dir {folder}",
    ),
    Setup("stillup", _STILLUP, by_worker=False),
    Setup("stillup --preload", f"{_STILLUP} --preload", by_worker=False),
    Setup("stillup --warm", f"{_STILLUP} --warm fastapi", by_worker=False),
)


@dataclass(frozen=True)
class Tail:
    """One round of one server: 99th percentiles and the longest in seconds, and what was counted."""

    quiet: float
    reload: float
    longest: float
    requests: int
    failed: int
    closed: int


async def measure(setup: Setup, workers: int) -> Tail:
    """Start it, and reload it under load.

    Raises:
        ServerFailed, TimeoutError: it cannot be started, answers not, or does not reload.
    """
    turns: list[tuple[float, float]] = []
    with TemporaryDirectory(prefix="tail-") as folder:
        _write(folder)
        port = free_port()
        target = Target.parse(f"127.0.0.1:{port}")
        async with started(setup.argv(workers, port, folder)) as server:
            await server.serves(target)
            async with Load(target, MIX, body=None, timed=lambda *turn: turns.append(turn)) as load:
                await load.wait_every_client(20)
                await asyncio.sleep(SETTLED + QUIET)
                known, begun = frozenset(load.report.generations), time.monotonic()
                server.check()
                server.process.send_signal(signal.SIGHUP)
                try:
                    await load.wait_new_generations(known, workers if setup.by_worker else 1, DEADLINE)
                except TimeoutError as error:
                    raise server.failed(str(error)) from None
                if time.monotonic() > begun + IN_A_RELOAD:
                    print(f"{setup.name}: not all new workers within {IN_A_RELOAD:g} s", file=sys.stderr)
                await asyncio.sleep(max(0.0, begun + IN_A_RELOAD - time.monotonic()))
                report = await load.stop()
    quiet = [took for at, took in turns if begun - QUIET <= at + took < begun]
    reload = [took for at, took in turns if begun <= at + took < begun + IN_A_RELOAD]
    return Tail(_p99(quiet), _p99(reload), max(reload), report.requests, report.failed, report.closed)


def _write(folder: str) -> None:
    Path(folder, "main.py").write_text(APP)


def _p99(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def table(told: Sequence[Mapping[str, object]]) -> str:
    """A Markdown table of them."""
    head = (
        "| workers | server | quiet | in a reload | ratio | longest | requests | failed | closed |\n"
        + "| --- " * 9
        + "|"
    )
    return "\n".join([head, *(_row(one) for one in told)])


def _row(one: Mapping[str, object]) -> str:
    times = f"{one['quiet']:.1f} ms | {one['reload']:.1f} ms | {one['ratio']:.1f} | {one['longest']:.0f} ms"
    return f"| {one['workers']} | {one['server']} | {times} | {one['requests']} | {one['failed']} | {one['closed']} |"


def _median(name: str, workers: int, tails: Sequence[Tail]) -> dict[str, object]:
    """The medians of the rounds, in milliseconds, and the sums of what was counted."""
    counted: Counter[str] = Counter()
    for one in tails:
        counted.update(requests=one.requests, failed=one.failed, closed=one.closed)
    return {
        "workers": workers,
        "server": name,
        "quiet": round(1000 * statistics.median(one.quiet for one in tails), 2),
        "reload": round(1000 * statistics.median(one.reload for one in tails), 2),
        "longest": round(1000 * statistics.median(one.longest for one in tails), 1),
        "ratio": round(statistics.median(one.reload / one.quiet for one in tails), 2),
        **counted,
    }


async def main(options: argparse.Namespace) -> int:
    """Run the rounds, and tell; 1 if something could not be measured."""
    told = []
    chosen = [one for one in SETUPS if not options.only or one.name in options.only]
    try:
        for workers in WORKERS:
            found: dict[str, list[Tail]] = defaultdict(list)
            for number in range(options.rounds):
                for one in chosen if number % 2 else reversed(chosen):
                    found[one.name].append(await measure(one, workers))
                print(f"{workers} workers: round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            told += [_median(one.name, workers, found[one.name]) for one in chosen]
    except (ServerFailed, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    print(table(told))
    if options.json and not options.only:
        document = {"rounds": options.rounds, "servers": told}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reload_tail", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", action="append", choices=[one.name for one in SETUPS])
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(main(_options())))
