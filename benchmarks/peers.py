"""Reload each ASGI server under the same load and compare what the clients saw.

`python -m benchmarks.peers` runs, one after another, the servers installed in its Python
environment: two workers each, the same application, their own defaults otherwise.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.load import KINDS, MIXED, Load, Mix, Pace, Report, Target
from benchmarks.server import Server, ServerFailed, command, run, started

APP = "benchmarks.app:app"
WORKERS = 2
RELOAD_DEADLINE = 60.0
MIX = replace(MIXED, early=0, pace=Pace(silence=0.75))
"""What every one of these servers keeps while nothing is reloaded.

Three of them always close when a body comes after its answer, and gunicorn does after a silence of 2 s.
"""


@dataclass(frozen=True)
class Peer:
    """How to start a server on a port, with a directory for its files, and how to reload it."""

    name: str
    options: Callable[[int, str], str]
    reload_command: str = ""  # empty: SIGHUP reloads
    new_generations: int = WORKERS  # that a reload brings: each new worker is one

    async def reload(self, path: Path, directory: str, server: Server) -> None:
        """Ask the server for a reload; only a command also waits for its end."""
        server.check()
        if self.reload_command:
            await _run([str(path), *self.reload_command.split(), directory])
        else:
            server.process.send_signal(signal.SIGHUP)


PEERS = (
    Peer(
        "uvicorn",
        lambda port, _: f"--workers {WORKERS} --port {port} --no-access-log {APP}",
    ),
    Peer(
        "gunicorn",
        # The control socket would be one for all gunicorns of this user.
        lambda port, _: f"-k asgi -w {WORKERS} -b 127.0.0.1:{port} --no-control-socket {APP}",
    ),
    Peer(
        "granian",
        lambda port, _: (
            f"--interface asgi --workers {WORKERS} --workers-kill-timeout 30 "
            f"--host 127.0.0.1 --port {port} --no-access-log {APP}"
        ),
    ),
    Peer(
        "hypercorn",
        lambda port, _: f"--workers {WORKERS} --bind 127.0.0.1:{port} {APP}",
    ),
    Peer(
        "stillup",
        lambda port, directory: (
            f"run {APP} --bind 127.0.0.1:{port} --workers {WORKERS} --name bench --runtime-dir {directory} "
            "--no-access-log"
        ),
        reload_command="reload --runtime-dir",
        new_generations=1,
    ),
)


@dataclass(frozen=True)
class Result:
    """What the clients of one server saw, over `reloads` reloads that brought new workers."""

    server: str
    version: str
    reloads: int
    report: Report


async def measure(peer: Peer, path: Path, mix: Mix, reloads: int, pause: float) -> Result:
    """Start the server, reload it `reloads` times under load, and end it.

    The next reload waits until every new worker has answered, and for `pause` seconds at least.
    """
    with TemporaryDirectory(prefix="bench-") as directory:
        port = free_port()
        target = Target.parse(f"127.0.0.1:{port}")
        async with started([str(path), *peer.options(port, directory).split()]) as server:
            await server.serves(target)
            try:
                async with Load(target, mix) as load:
                    await load.wait_every_client()
                    for _ in range(reloads):
                        next_reload = time.monotonic() + pause
                        known = frozenset(load.report.generations)
                        await peer.reload(path, directory, server)
                        await load.wait_new_generations(known, peer.new_generations, RELOAD_DEADLINE)
                        await asyncio.sleep(next_reload - time.monotonic())
                    report = await load.stop()
            except TimeoutError as error:
                raise server.failed(str(error)) from None
            server.check()
    return Result(peer.name, version(peer.name), reloads, report)


async def _run(argv: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE, stderr=STDOUT)
    output, _ = await process.communicate()
    if process.returncode:
        raise ServerFailed(f"{' '.join(argv)} exited with {process.returncode}\n{output.decode()}")


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def table(results: Sequence[Result]) -> str:
    """The two Markdown tables: totals, and what each kind of client lost."""
    totals = [["server", "reloads", "requests", "failed", "closed", "reconnected", "longest time without answer"]]
    kinds = [["failed + closed by kind", *(f"{result.server} {result.version}" for result in results)]]
    kinds += [[name, *(_lost(result.report, name) for result in results)] for name in KINDS if getattr(MIX, name)]
    kinds.append(["most often failed by", *(_most_often(result.report) for result in results)])
    for result in results:
        report, name = result.report, f"{result.server} {result.version}"
        counts = (result.reloads, report.requests, report.failed, report.closed, report.reconnected)
        totals.append([name, *map(str, counts), f"{report.longest_gap * 1000:.0f} ms"])
    return "\n\n".join("\n".join(_rows(rows)) for rows in (totals, kinds))


def _lost(report: Report, name: str) -> str:
    """Only a kept connection can be closed."""
    tally = report.kinds[name]
    return f"{tally.failed} + {tally.closed}" if KINDS[name].kept else str(tally.failed)


def _most_often(report: Report) -> str:
    return report.reasons.most_common(1)[0][0] if report.reasons else "-"


def _rows(rows: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]


async def main(options: argparse.Namespace) -> int:
    """Measure the chosen servers; 1 if there were none or one of them broke."""
    mix = replace(MIX, think=0.0) if options.saturate else MIX
    results, broken = [], 0
    for peer in PEERS:
        if options.only and peer.name not in options.only:
            continue
        path = command(peer.name)
        if path is None:
            _progress(f"{peer.name}: skipped, not installed in {Path(sys.executable).parent}")
            continue
        _progress(f"{peer.name} {version(peer.name)}: {options.reloads} reloads ...")
        try:
            result = await measure(peer, path, mix, options.reloads, options.seconds_per_reload)
        except ServerFailed as error:
            broken += 1
            _progress(f"{peer.name}: {error}")
            continue
        _progress(f"{peer.name}: {result.report}, in {result.report.duration:.0f} s")
        results.append(result)
    if results:
        print(table(results))
    if options.json:
        options.json.write_text(json.dumps(_document(results, mix), indent=2) + "\n")
    return 1 if broken or not results else 0


def _document(results: Sequence[Result], mix: Mix) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "workers": WORKERS,
        "mix": asdict(mix),
        "servers": [
            {"server": r.server, "version": r.version, "reloads": r.reloads} | r.report.as_dict() for r in results
        ],
    }


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--reloads", type=int, default=6)
    parser.add_argument("--seconds-per-reload", type=float, default=3.0, help="at least")
    parser.add_argument("--saturate", action="store_true", help="clients do not pause")
    parser.add_argument("--only", action="append", choices=[peer.name for peer in PEERS])
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(main(_options())))
