"""Reload stillup while thousands of connections are open and idle: `python -m benchmarks.idle_connections`.

A few clients that never stop asking measure what a reload costs, first without the idle connections, then with them.
After it each idle connection must be open and be answered by the new generation. Exits with 1 if one is not.
"""

import argparse
import asyncio
import gc
import math
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.connection import Connection, NoAnswer
from benchmarks.control import Control, Exits
from benchmarks.load import Load, Mix, Target
from benchmarks.request_types import GET
from benchmarks.server import Server, ServerFailed, command, run, started

APP = "benchmarks.app:app"
AT_ONCE = 32  # idle connections that are opened, or asked, at the same time
KEEP_ALIVE = 600  # seconds; an idle connection that is closed by right would prove nothing
SPARE = 256  # descriptors that each process needs beside one for each connection
DRAIN = 60.0  # seconds that the old processes are waited for
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


@dataclass(frozen=True)
class Measured:
    """One reload: its rollout, the seconds from the cut-over until the old processes were gone, and the latencies.

    `latencies`, in seconds and sorted, are those of the requests that were under way at any time between the two ends.
    """

    rollout: dict[str, Any]
    gone: float
    latencies: list[float]

    def rows(self) -> dict[str, str]:
        """What there is to tell, by what it is called."""
        rollout = self.rollout
        return {
            "boot": f"{rollout['booting_for']:.2f} s",
            "cut over": f"{rollout['cut_over_took'] * 1000:.1f} ms",
            "reload, total": f"{rollout['total']:.2f} s",
            "old generation gone after": f"{self.gone * 1000:.0f} ms",
            "requests meanwhile": str(len(self.latencies)),
        } | {f"latency {name}": f"{self.percentile(part) * 1000:.1f} ms" for name, part in PERCENTILES.items()}

    def percentile(self, part: float) -> float:
        """The nearest rank."""
        return self.latencies[max(0, math.ceil(part * len(self.latencies)) - 1)] if self.latencies else math.nan


class Background:
    """The load that measures, with the latency of each of its requests."""

    def __init__(self, target: Target, clients: int, think: float) -> None:
        self.load = Load(target, Mix(keepalive=clients, think=think), timed=self._timed)
        self._times: list[tuple[float, float]] = []

    def _timed(self, begun: float, took: float) -> None:
        self._times.append((begun, took))

    async def watch(self, control: Control) -> Measured:
        """Reload and measure."""
        await self.load.wait_every_client()
        with Exits(await control.pids()) as exits:
            begun = time.monotonic()
            rollout = await control.reload()
            gone = await exits.all(DRAIN)
            ended = time.monotonic()
        # Those that are under way have not been entered yet.
        await self.load.wait_every_client()
        latencies = sorted(took for at, took in self._times if at <= ended and at + took >= begun)
        return Measured(rollout, gone, latencies)


class IdleClients:
    """Idle connections, each of which was answered once."""

    def __init__(self, target: Target, count: int) -> None:
        self._connections = [Connection(target) for _ in range(count)]

    async def open(self) -> None:
        """Open all and ask each once.

        Raises:
            NoAnswer: one got no answer.
        """

        async def ask(connection: Connection) -> None:
            await connection.open()
            await connection.send(GET)
            await connection.answer()
            connection.rest()

        await _each(self._connections, ask)

    async def lost(self, generation: str) -> Counter[str]:
        """Ask each again; how many were lost, by how. None is lost that is open and answered by `generation`."""
        lost: Counter[str] = Counter()

        async def ask(connection: Connection) -> None:
            if connection.ended_by_server():
                lost["closed"] += 1
                return
            try:
                await connection.send(GET)
                answer = await connection.answer()
            except NoAnswer as error:
                lost[f"{connection.phase}: {error}"] += 1
                return
            connection.rest()
            if answer.closes:
                lost["told to close"] += 1
            elif (other := answer.headers.get("x-gen")) != generation:
                lost[f"answered by generation {other}"] += 1

        await _each(self._connections, ask)
        return lost

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


async def _each(connections: Iterable[Connection], do: Callable[[Connection], Awaitable[None]]) -> None:
    """Do it for each connection, for AT_ONCE at the same time."""
    left = iter(connections)

    async def worker() -> None:
        for connection in left:
            await do(connection)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())


def fitting(wanted: int) -> int:
    """Raise the soft limit of descriptors to the hard one, here and so for the server; how many connections fit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if wanted + SPARE <= hard:
        return wanted
    fits = max(0, hard - SPARE)
    print(
        f"the hard limit of open files is {hard}, {wanted + SPARE - hard} too low for {wanted} connections: "
        f"{fits} it is (ulimit -Hn {wanted + SPARE})",
        file=sys.stderr,
    )
    return fits


async def measure(stillup: Path, options: argparse.Namespace) -> bool:
    """Reload without and with idle connections, print both, and tell whether nobody was lost."""
    uid = options.uid if os.geteuid() == 0 else None
    with TemporaryDirectory(prefix="idle-") as directory:
        if uid is not None:
            os.chown(directory, uid, uid)
        control = Control(f"{directory}/run")
        argv = (
            f"run {APP} --bind 127.0.0.1:0 --workers {options.workers} --name idle --runtime-dir {control.directory} "
            f"--http {options.http} --loop {options.loop} --timeout-keep-alive {KEEP_ALIVE} --no-access-log"
        )
        async with started([str(stillup), *argv.split()], uid) as server:
            target = await control.serving(server)
            try:
                return await _compare(control, target, options)
            except* (NoAnswer, TimeoutError) as errors:
                raise _failed(server, errors) from None


def _failed(server: Server, errors: BaseExceptionGroup[Exception]) -> ServerFailed:
    return server.failed(f"failed: {errors.exceptions[0]}")


async def _compare(control: Control, target: Target, options: argparse.Namespace) -> bool:
    count = fitting(options.connections)
    background = Background(target, options.clients, options.think / 1000)
    clients = IdleClients(target, count)
    try:
        async with background.load as load:
            alone = await background.watch(control)
            opening = time.monotonic()
            await clients.open()
            print(f"{count} idle connections, opened in {time.monotonic() - opening:.1f} s", flush=True)
            # The collector would look at all of them again and again, in the process that takes the time.
            gc.collect()
            gc.freeze()
            with_idle = await background.watch(control)
            report = await load.stop()
        lost = await clients.lost(str(with_idle.rollout["generation"]))
    finally:
        clients.close()
    rows = [["", "no idle connections", f"{count} idle connections"]]
    rows += [[name, text, with_idle.rows()[name]] for name, text in alone.rows().items()]
    print("\n".join(f"{name:26}{left:>21}{right:>26}" for name, left, right in rows))
    print(f"measuring clients: {report}")
    print(f"idle connections: {lost.total()} of {count} lost{_why(lost)}")
    return not (lost or report.failed or report.closed)


def _why(lost: Counter[str]) -> str:
    return f" ({', '.join(f'{number} {why}' for why, number in lost.most_common(5))})" if lost else ""


async def main(options: argparse.Namespace) -> int:
    """Run the comparison; 1 if a connection was lost or it could not run."""
    stillup = command("stillup")
    if stillup is None:
        print(f"stillup is not installed in {Path(sys.executable).parent}", file=sys.stderr)
        return 1
    try:
        return 0 if await measure(stillup, options) else 1
    except PermissionError as error:
        print(
            f"uid {options.uid} cannot run stillup ({error}); give it a Python that it may read, such as "
            "make bench-idle PYTHON=/usr/bin/python3 VENV=/var/tmp/stillup-venv",
            file=sys.stderr,
        )
        return 1
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 1


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle_connections", description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000, metavar="N", help="that are idle")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8, help="that measure")
    parser.add_argument("--think", type=float, default=5.0, metavar="MS", help="of the clients that measure")
    parser.add_argument("--uid", type=int, default=12345, help="whom root starts the server as")
    parser.add_argument("--http", default="auto")
    parser.add_argument("--loop", default="auto")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(run(main(_options())))
