"""A Unix socket beside TCP on the loopback interface: `python -m benchmarks.socket_kinds`.

One stillup serves the example app on both, and h2load asks each in turn with the same number of connections: requests
a second, and how long they take. Then redis-server does the same, asked by redis-benchmark: how much two kinds of
sockets differ where the server does next to nothing. Told are the medians of the rounds, and the middle of the
rounds' ratios. All rounds ask the same processes: others differ by more than the bounds say.
"""

import argparse
import asyncio
import json
import math
import re
import shutil
import statistics
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.before import bounds
from benchmarks.connection import NoAnswer, Target
from benchmarks.control import Control
from benchmarks.peers import free_port
from benchmarks.server import POLL, ServerFailed, command, run, started

APP = "app_example.main:app"
TCP, UNIX = "TCP", "Unix"
PACKAGES = {"h2load": "nghttp2-client", "redis-server": "redis-server", "redis-benchmark": "redis-tools"}
STARTED = 10.0  # seconds for redis to answer
_RATE = re.compile(r"^finished in [\d.]+m?s, ([\d.]+) req/s", re.MULTILINE)
_CLEAN = re.compile(r"^requests: .* 0 failed, 0 errored, 0 timeout$", re.MULTILINE)


@dataclass(frozen=True)
class Figures:
    """Of one round at one socket: requests a second, and milliseconds that half of them, and 99 %, took at most."""

    rate: float
    p50: float
    p99: float


class Rounds:
    """What the rounds of one server measured, by the kind of its socket."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.figures: dict[str, list[Figures]] = {TCP: [], UNIX: []}

    def summary(self) -> dict[str, object]:
        """The medians of both, and the middle of the ratios of their rates with its 95 % bounds."""
        middle = {
            kind: {name: statistics.median(getattr(one, name) for one in rounds) for name in ("rate", "p50", "p99")}
            for kind, rounds in self.figures.items()
        }
        ratios = [ours.rate / theirs.rate for ours, theirs in zip(*(self.figures[k] for k in (UNIX, TCP)), strict=True)]
        ratio, low, high = bounds(ratios)
        return {"server": self.server, **middle, "ratio": ratio, "low": low, "high": high, "rounds": len(ratios)}


def table(summaries: Sequence[Mapping[str, object]]) -> str:
    """The Markdown table."""
    lines = [
        "| server | socket | requests a second | p50 | p99 | Unix to TCP |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in summaries:
        for kind in (TCP, UNIX):
            figures = one[kind]
            assert isinstance(figures, Mapping)
            ratio = f"{one['ratio']:.2f} ({one['low']:.2f} to {one['high']:.2f})" if kind == UNIX else ""
            took = f"{figures['p50']:.2f} ms | {figures['p99']:.2f} ms"
            lines.append(f"| {one['server']} | {kind} | {figures['rate']:.0f} | {took} | {ratio} |")
    return "\n".join(lines)


async def _output(*argv: str) -> str:
    """What a program says.

    Raises:
        ServerFailed: it failed.
    """
    process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    try:
        output = (await process.communicate())[0].decode(errors="replace")
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise ServerFailed(f"{' '.join(argv)} exited with {process.returncode}\n{output}")
    return output


async def by_h2load(base: str, log: Path, connections: int, seconds: int) -> Figures:
    """One round; of each request h2load logs the microseconds that it took (h2load(1), --log-file).

    Raises:
        ServerFailed: a request failed, or h2load did.
    """
    words = f"h2load --h1 -t1 -c{connections} -D{seconds} --log-file={log} -B {base} http://localhost/"
    output = await _output(*words.split())
    rate = _RATE.search(output)
    times = _logged(log)
    if rate is None or not _CLEAN.search(output) or not times:
        raise ServerFailed(f"{words} did not measure\n{output}")
    return Figures(float(rate[1]), *(times[math.ceil(part * len(times)) - 1] for part in (0.5, 0.99)))


def _logged(log: Path) -> list[float]:
    """The milliseconds of all requests, the shortest first; h2load would add those of the next round."""
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return sorted(int(line.split("\t")[2]) / 1000 for line in lines)


async def by_redis(where: Sequence[str], connections: int, requests: int) -> Figures:
    """One round of redis-benchmark's GET.

    Raises:
        ServerFailed: it failed.
    """
    words = ["redis-benchmark", *where, "-c", str(connections), "-n", str(requests), "-t", "get", "--csv"]
    output = await _output(*words)
    head, row = (line.strip('"').split('","') for line in output.splitlines()[-2:])
    found = dict(zip(head, row, strict=True))
    return Figures(float(found["rps"]), float(found["p50_latency_ms"]), float(found["p99_latency_ms"]))


@asynccontextmanager
async def redis(folder: str) -> AsyncIterator[tuple[int, str]]:
    """A redis-server that keeps nothing on a disk; its port and its socket.

    Raises:
        ServerFailed: it does not answer.
    """
    port, path = free_port(), f"{folder}/redis.sock"
    words = f"redis-server --port {port} --bind 127.0.0.1 --unixsocket {path} --save '' --appendonly no --dir {folder}"
    async with started([word.strip("'") for word in words.split()]) as server:
        async with asyncio.timeout(STARTED):
            while not await _is_there(path):
                server.check()
                await asyncio.sleep(POLL)
        yield port, path


async def _is_there(path: str) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True


async def measure(stillup: Path, options: argparse.Namespace) -> list[Rounds]:
    """All rounds of both servers.

    Raises:
        ServerFailed, NoAnswer, TimeoutError: something could not be measured.
    """
    with TemporaryDirectory(prefix="sockets-") as folder:
        control, path, log = Control(f"{folder}/run"), f"{folder}/app.sock", Path(folder, "log")
        words = f"run {APP} --bind 127.0.0.1:0 --bind unix:{path} --workers {options.workers} --name sockets"
        words += f" --runtime-dir {control.directory} --no-access-log"
        ours, theirs = Rounds("stillup, the example app"), Rounds("redis-server, GET")
        async with started([str(stillup), *words.split()]) as server:
            tcp: Target = await control.serving(server)
            bases = {TCP: f"http://{tcp}", UNIX: f"unix:{path}"}
            for base in bases.values():
                await by_h2load(base, log, options.connections, 1)  # warms up
            for number in range(options.rounds):
                for kind in (TCP, UNIX) if number % 2 else (UNIX, TCP):
                    ours.figures[kind].append(await by_h2load(bases[kind], log, options.connections, options.seconds))
                print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
        async with redis(folder) as (port, socket):
            places = {TCP: ["-h", "127.0.0.1", "-p", str(port)], UNIX: ["-s", socket]}
            for number in range(options.rounds):
                for kind in (TCP, UNIX) if number % 2 else (UNIX, TCP):
                    figures = await by_redis(places[kind], options.connections, options.requests)
                    theirs.figures[kind].append(figures)
    return [ours, theirs]


async def main(options: argparse.Namespace) -> int:
    """Run the comparison; 1 if it could not run."""
    stillup = command("stillup")
    if stillup is None:
        print(f"stillup is not installed in {Path(sys.executable).parent}", file=sys.stderr)
        return 1
    if missing := [package for name, package in PACKAGES.items() if shutil.which(name) is None]:
        print(f"not here: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 1
    try:
        found = [one.summary() for one in await measure(stillup, options)]
    except (ServerFailed, NoAnswer, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.rounds} rounds, {options.connections} connections, {options.workers} workers")
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps({"connections": options.connections, "servers": found}, indent=2) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.socket_kinds", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2, help="of each round of the app, for each socket")
    parser.add_argument("--requests", type=int, default=50_000, help="of each round of redis, for each socket")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(main(_options())))
