"""Reload an application under load before your eyes: `python -m benchmarks.demo`.

Exits with 1 when a request or a reload failed.
"""

import argparse
import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.load import MIXED, Load, Target
from benchmarks.server import POLL, START_DEADLINE, Server, ServerFailed, command, run, started

MIX = replace(MIXED, pipelined=0, early=0, background=0, chunked=0)
"""The kinds that ask for nothing but the routes of the example app."""


async def serving(stillup: Path, directory: str, server: Server) -> Target:
    """Wait until `stillup status` says "serving", and return its first listener."""
    try:
        async with asyncio.timeout(START_DEADLINE):
            while (status := await _status(stillup, directory)).get("state") != "serving":
                server.check()
                await asyncio.sleep(POLL)
    except TimeoutError:
        raise server.failed(f"did not serve within {START_DEADLINE:g} s") from None
    return Target.parse(status["listeners"][0]["address"])


async def _status(stillup: Path, directory: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        stillup, "status", "--json", "--runtime-dir", directory, stdout=PIPE, stderr=DEVNULL
    )
    output, _ = await process.communicate()
    # A server that is starting has no status yet, which is no error.
    return dict(json.loads(output)) if process.returncode == 0 else {}


async def reload(stillup: Path, directory: str) -> bool:
    """Run `stillup reload`, show its lines, and tell whether it succeeded."""
    process = await asyncio.create_subprocess_exec(
        stillup, "reload", "--runtime-dir", directory, stdout=PIPE, stderr=STDOUT
    )
    assert process.stdout is not None, "it is a pipe"
    async for line in process.stdout:
        print(f"      | {line.decode(errors='replace').rstrip()}", flush=True)
    return await process.wait() == 0


async def show(load: Load) -> None:
    """Print the live counters once a second."""
    before = 0
    while True:
        await asyncio.sleep(1)
        report = load.report
        newest = next(reversed(report.generations), "-")
        print(
            f"{report.duration:4.0f} s | {report.requests:6} requests, {report.failed} failed, "
            f"{report.closed} closed | generation {newest} | {report.requests - before} req/s",
            flush=True,
        )
        before = report.requests


async def demonstrate(stillup: Path, app: str, reloads: int) -> bool:
    """Serve `app`, reload it under load, print what happens, and tell whether nothing failed."""
    broken = 0
    with TemporaryDirectory(prefix="demo-") as directory:
        options = f"run {app} --bind 127.0.0.1:0 --workers 2 --name demo --runtime-dir {directory}"
        async with started([str(stillup), *options.split()]) as server:
            target = await serving(stillup, directory, server)
            print(f"{app} serves at {target}")
            # The application is free to answer `/` and `/slow` as it likes.
            async with Load(target, MIX, body=None) as load:
                showing = asyncio.create_task(show(load))
                try:
                    await load.wait_every_client()
                    for number in range(1, reloads + 1):
                        print(f"      reload {number} of {reloads}")
                        broken += not await reload(stillup, directory)
                        await load.wait_every_client()
                finally:
                    showing.cancel()
                report = await load.stop()
    print(f"\n{report}\n{reloads} reloads, {broken} failed")
    for failure in report.failures[:10]:
        print(f"  {failure.at:.1f} s, {failure.kind}: {failure.phase}: {failure.reason}")
    return not (report.failed or broken)


async def main(options: argparse.Namespace) -> int:
    """Run the demonstration; 1 if anything failed or it could not run."""
    stillup = command("stillup")
    if stillup is None:
        print(f"stillup is not installed in {Path(sys.executable).parent}", file=sys.stderr)
        return 1
    try:
        return 0 if await demonstrate(stillup, options.app, options.reloads) else 1
    except (ServerFailed, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--reloads", type=int, default=5)
    parser.add_argument("--app", default="app_example.main:app", metavar="MODULE:NAME")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(main(_options())))
