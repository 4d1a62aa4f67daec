"""How long a reload takes beside a bare start of uvicorn, and what a service weighs: `python -m benchmarks.boot`.

Each round starts, for each app, one bare uvicorn, whose time to its first answer is the measure, and then in turn a
stillup for each way in which workers begin: started one by one, forked from a template, from one that has imported
what the app imports, too (`--warm`), and from a process that has imported the app (`--preload`). Of each: a reload by
the API's answer, from there until the workers before have ended, all workers killed to all serving again, and the
memory of all its processes (PSS). Told are the medians of the rounds: of times the ratio to uvicorn's start in the same
round, of memory the ratio to a uvicorn's with as many workers; and in milliseconds the times from the kill to all
serving, and until the old have left.

`--busy N` has N other processes use a processor each meanwhile. What is measured so, or of some of the apps, is no part
of `--json`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.connection import NoAnswer, Target
from benchmarks.control import Control, Exits
from benchmarks.processes import hold
from benchmarks.server import ROOT, ServerFailed, answers, command, run, started

GONE = 30.0  # seconds until the workers before a reload have left
LOOK = 0.002  # seconds between two looks whether somebody answers
SETTLED = 1.0  # seconds for the other workers of a uvicorn
RELOAD, LEFT, KILLED, MEMORY = "a reload", "ms until the old have left", "killed to serving", "memory"
RELOADS = 3  # of each service in each round
WAYS = {
    "started": ("--no-template",),
    "template": (),
    "preload": ("--preload",),
    "warm": ("--warm",),
    "warm, preload": ("--preload", "--warm"),
}


@dataclass(frozen=True)
class App:
    """An app, how many workers it has, and what `--warm` is given."""

    source: str
    workers: int
    warm: str = ""


_FASTAPI = "import fastapi\napp = fastapi.FastAPI()\napp.get('/')(lambda: {'hello': 'world'})"
_PANDAS = f"import pandas, sqlalchemy\n{_FASTAPI}"
APPS = {
    "trivial": App("from benchmarks.app import app", 2),
    "fastapi2": App(_FASTAPI, 2, "fastapi"),
    "fastapi": App(_FASTAPI, 4, "fastapi"),
    "pandas": App(_PANDAS, 4, "fastapi,pandas,sqlalchemy"),
}
"""Each answers `GET /`."""


async def bare(app: App, folder: str) -> tuple[float, float]:
    """Seconds from the start of a bare uvicorn to its first answer; megabytes (PSS) of one with as many workers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = f"{command('uvicorn')} main:app --port {port} --log-level warning --app-dir {folder}".split()
    target = Target.parse(f"127.0.0.1:{port}")
    begun = time.monotonic()
    async with started(words) as server:
        while not await answers(target):
            server.check()
            await asyncio.sleep(LOOK)
        took = time.monotonic() - begun
    async with started([*words, "--workers", str(app.workers)]) as server:
        await server.serves(target)
        await asyncio.sleep(SETTLED)
        return took, _memory(server.process.pid)


async def stillup(app: App, way: str, folder: str) -> dict[str, float]:
    """What one service of that app costs whose workers begin in that way.

    Raises:
        ServerFailed: it cannot be started.
        NoAnswer, TimeoutError: it does not what it was asked.
    """
    control = Control(f"{folder}/run")
    same = f"run main:app --workers {app.workers} --bind 127.0.0.1:0 --no-access-log --name boot --probation 0"
    words = [str(command("stillup")), *same.split(), "--app-dir", folder, "--runtime-dir", control.directory]
    async with started([*words, *WAYS[way], *([app.warm] if "--warm" in WAYS[way] else [])]) as server:
        await control.serving(server)
        times, left = [], []
        for _ in range(RELOADS):
            with Exits(await control.pids()) as old:
                begun = time.monotonic()
                await control.reload()
                times.append(time.monotonic() - begun)
                left.append(await old.all(GONE))
            await control.until(lambda status: len(status["generations"]) == 1, GONE, "the old ones have left")
        memory = _memory(server.process.pid)
        before = await control.pids()
        begun = time.monotonic()
        for pid in before:
            with hold(pid) as grip:
                grip.signal(signal.SIGKILL)
        while not await _all_serve(control, before, app.workers):  # noqa: ASYNC110 - it is another process that knows
            await asyncio.sleep(LOOK)
        again = time.monotonic() - begun
    return {RELOAD: statistics.median(times), LEFT: statistics.median(left), KILLED: again, MEMORY: memory}


def _write(app: App, folder: str) -> None:
    Path(folder, "main.py").write_text(app.source)


async def _all_serve(control: Control, before: set[int], workers: int) -> bool:
    status = await control.status()
    serving = {w["pid"] for g in status.get("generations", ()) for w in g["workers"] if w["state"] == "serving"}
    return len(serving - before) == workers


def _memory(pid: int) -> float:
    """Megabytes of a process and of all below it, of what is common to several of them the part of each (PSS)."""
    process = psutil.Process(pid)
    pss = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # what has ended meanwhile has none
            pss += one.memory_full_info().pss
    return pss / 2**20


async def measure(app: App, rounds: int) -> dict[str, dict[str, list[float]]]:
    """The figures of each way, round by round.

    Raises:
        ServerFailed, NoAnswer, TimeoutError: something could not be measured.
    """
    found: dict[str, dict[str, list[float]]] = {way: defaultdict(list) for way in ("uvicorn", *WAYS)}
    ways = [way for way in WAYS if "--warm" not in WAYS[way] or app.warm]
    for number in range(rounds):
        with TemporaryDirectory(prefix="boot-") as folder:
            _write(app, folder)
            start, memory = await bare(app, folder)
            found["uvicorn"]["start"].append(start)
            found["uvicorn"][MEMORY].append(memory)
            for way in ways if number % 2 else reversed(ways):
                figures = await stillup(app, way, folder)
                for figure, unit in ((RELOAD, start), (KILLED, start), (MEMORY, memory)):
                    found[way][figure].append(figures[figure] / unit)
                found[way]["ms"].append(1000 * figures[KILLED])
                found[way][LEFT].append(1000 * figures[LEFT])
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return found


async def main(options: argparse.Namespace) -> int:
    """Run the rounds, and tell; 1 if something could not be measured."""
    os.environ["PYTHONPATH"] = str(ROOT)  # where the trivial app is
    told = {}
    with contextlib.ExitStack() as busy:
        for _ in range(options.busy):
            busy.enter_context(_busy())
        try:
            for name in options.app or APPS:
                told[name] = found = _medians(await measure(APPS[name], options.rounds))
                _tell(name, APPS[name], found, options.rounds)
        except (ServerFailed, NoAnswer, TimeoutError) as error:
            print(error, file=sys.stderr)
            return 1
    if options.json and not options.busy and not options.app:
        options.json.write_text(json.dumps({"rounds": options.rounds, "apps": told}, indent=2) + "\n")
    return 0


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """A process that uses as much of a processor as it is given."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def _medians(found: Mapping[str, Mapping[str, list[float]]]) -> dict[str, dict[str, float]]:
    return {
        way: {figure: round(statistics.median(values), 3) for figure, values in figures.items()}
        for way, figures in found.items()
        if figures
    }


def _tell(name: str, app: App, found: Mapping[str, Mapping[str, float]], rounds: int) -> None:
    start, memory = (found["uvicorn"][figure] for figure in ("start", MEMORY))
    print(f"{name} x{app.workers}, {rounds} rounds; uvicorn starts in {start:.2f} s, and has {memory:.0f} MB")
    for way in WAYS:
        figures = [f"{figure} {value:.2f}" for figure, value in found.get(way, {}).items()]
        if figures:
            print(f"  {way:13} {', '.join(figures)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.boot", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--app", action="append", choices=APPS)
    parser.add_argument("--busy", type=int, default=0, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(main(_options())))
