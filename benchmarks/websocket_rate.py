"""WebSocket messages a second of stillup beside uvicorn: `python -m benchmarks.websocket_rate`.

An app that echoes is served by uvicorn, by stillup and by a second stillup, which says what two starts of the same
code differ by. They are measured in turn: CONNECTIONS clients, each with WINDOW messages on their way, count the
echoes of a second. Told are the middles of the rounds' ratios with their 95 % bounds, which hold for these processes.
It exits with 1 if the bound to uvicorn is below LEAST.
"""

import argparse
import asyncio
import base64
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from benchmarks.before import bounds
from benchmarks.connection import Target
from benchmarks.control import Control
from benchmarks.peers import free_port
from benchmarks.server import Server, ServerFailed, command, run, started
from benchmarks.throughput import APP, WARM_UP, warn_of_autogroups

CONNECTIONS, WINDOW = 8, 64
LEAST = 0.97  # of uvicorn's rate
TEXT = b"a message of a common size, 64 bytes with what is in front of it"
UVICORN, NOW, AGAIN = "uvicorn", "stillup", "stillup, once more"


def _frame(text: bytes) -> bytes:
    """A masked text frame (RFC 6455, section 5.2) of less than 126 bytes."""
    mask = os.urandom(4)
    return bytes([0x81, 0x80 | len(text)]) + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(text))


@dataclass
class Client:
    """One WebSocket, and the echoes that it has had."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    echoes: int = 0

    async def echo(self, until: float) -> None:
        """Send WINDOW messages whenever those before have come back.

        Raises:
            ServerFailed: something else came.
        """
        frames, expected = _frame(TEXT) * WINDOW, (bytes([0x81, len(TEXT)]) + TEXT) * WINDOW
        while time.monotonic() < until:
            self.writer.write(frames)
            if await self.reader.readexactly(len(expected)) != expected:
                raise ServerFailed("something else than the echo came")
            self.echoes += WINDOW


@asynccontextmanager
async def clients(target: Target) -> AsyncIterator[list[Client]]:
    """CONNECTIONS of them, which have shaken hands."""
    host, _, port = str(target).rpartition(":")
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(CONNECTIONS):
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            key = base64.b64encode(os.urandom(16)).decode()
            lines = ["GET /echo-messages HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade"]
            lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
            writer.write("\r\n".join(lines).encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101"):
                raise ServerFailed(f"no WebSocket: {head.decode()}")
            found.append(Client(reader, writer))
        yield found


async def rate(target: Target, seconds: float) -> float:
    """Messages a second that are echoed."""
    async with clients(target) as all_of_them:
        began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                for client in all_of_them:
                    group.create_task(client.echo(began + seconds))
        except* (ServerFailed, OSError, EOFError) as errors:
            raise ServerFailed(f"a WebSocket ended: {errors.exceptions[0]!r}") from None
        return sum(client.echoes for client in all_of_them) / (time.monotonic() - began)


@asynccontextmanager
async def contestants(options: argparse.Namespace) -> AsyncIterator[dict[str, Target]]:
    """All that are compared, serving."""
    same = f"{APP} --workers {options.workers} --ws websockets-sansio --no-access-log"
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory(prefix="bench-"))
        found: dict[str, Target] = {}
        for number, name in enumerate((NOW, AGAIN)):
            control = Control(f"{directory}/run-{number}")
            words = f"run {same} --bind 127.0.0.1:0 --name bench-{number} --runtime-dir {control.directory}"
            server: Server = await stack.enter_async_context(started([str(command("stillup")), *words.split()]))
            found[name] = await control.serving(server)
        port = free_port()
        server = await stack.enter_async_context(started([str(command("uvicorn")), *f"{same} --port {port}".split()]))
        found[UVICORN] = Target.parse(f"127.0.0.1:{port}")
        await server.serves(found[UVICORN])
        yield found


async def main(options: argparse.Namespace) -> int:
    """Run the rounds, and tell; 1 if they could not be run, or stillup is slower than it may be."""
    warn_of_autogroups()
    rates: dict[str, list[float]] = {UVICORN: [], NOW: [], AGAIN: []}
    try:
        async with contestants(options) as targets:
            for target in targets.values():
                await rate(target, WARM_UP)
            order = list(targets)
            for number in range(options.rounds):
                for name in order if number % 2 else reversed(order):
                    rates[name].append(await rate(targets[name], options.seconds))
                print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 1
    least = 1.0
    print(f"{options.rounds} rounds, {CONNECTIONS} connections, {options.workers} workers; messages a second")
    for name in (NOW, AGAIN):
        middle, low, high = bounds([one / other for one, other in zip(rates[name], rates[UVICORN], strict=True)])
        print(f"{name:>20} {statistics.median(rates[name]):8.0f}, of uvicorn's {middle:.3f}  {low:.3f} to {high:.3f}")
        least = min(least, low)
    middle, low, high = bounds([one / other for one, other in zip(rates[NOW], rates[AGAIN], strict=True)])
    print(f"{'one stillup':>20} {'':8}  of the other's {middle:.3f}  {low:.3f} to {high:.3f}")
    return int(least < LEAST)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.websocket_rate", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round, for each server")
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run(main(_options())))
