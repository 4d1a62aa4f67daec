"""A server process that is always ended, and asked for a page until it serves one."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from benchmarks.connection import Connection, NoAnswer, Target
from benchmarks.request_types import GET_ONCE

ROOT = Path(__file__).resolve().parent.parent
POLL = 0.05
START_DEADLINE = 30.0
STOP_DEADLINE = 40.0  # above the 30 s that gunicorn gives its connections
OUTPUT_TAIL = 65536


class ServerFailed(Exception):
    """The server died or did not do its work; the text ends with its last output."""


def command(name: str) -> Path | None:
    """Find the command `name` of this Python environment; None if it is not installed."""
    path = Path(sys.executable).with_name(name)
    return path if path.exists() else None


def run(main: Coroutine[Any, Any, int]) -> int:
    """asyncio.run() that SIGTERM ends as an interrupt does, so that no server is left."""
    # A shell starts its background jobs with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return asyncio.run(main)
    except KeyboardInterrupt:
        return 130


@dataclass(frozen=True)
class Server:
    """A running server; its standard output and error are in a file."""

    name: str
    process: Process
    output: IO[bytes]

    def check(self) -> None:
        """Raise ServerFailed if the process has ended."""
        if self.process.returncode is not None:
            raise self.failed(f"exited with {self.process.returncode}")

    def failed(self, what: str) -> ServerFailed:
        """Return the error for `what`, with the last output of the server."""
        # The server writes at the same file offset, and pread() does not move it.
        file = self.output.fileno()
        data = os.pread(file, OUTPUT_TAIL, max(0, os.fstat(file).st_size - OUTPUT_TAIL))
        lines = data.decode(errors="replace").splitlines()[-30:]
        return ServerFailed("\n".join([f"{self.name} {what}", *lines]))

    async def serves(self, target: Target) -> None:
        """Wait until the server answers `GET /`."""
        try:
            async with asyncio.timeout(START_DEADLINE):
                while not await answers(target):
                    self.check()
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise self.failed(f"did not serve within {START_DEADLINE:g} s") from None


@asynccontextmanager
async def started(argv: Sequence[str], uid: int | None = None) -> AsyncIterator[Server]:
    """Start a server in a session of its own, and end it when the context is left.

    With `uid` it is that user's, who has no group but that of the same number; only root can start one.
    """
    with TemporaryFile() as output:
        server = await start(argv, output, uid)
        try:
            yield server
        finally:
            await end(server.process)


async def start(argv: Sequence[str], output: IO[bytes], uid: int | None = None) -> Server:
    """Start a server in a session of its own; whoever started it ends it."""
    rights: dict[str, Any] = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
    # Without a generation in the environment the application answers with its pid.
    environment = {k: v for k, v in os.environ.items() if k != "STILLUP_GENERATION"}
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=DEVNULL,
        stdout=output,
        stderr=output,
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        # Ctrl-C then reaches the load alone, which ends the server in order.
        start_new_session=True,
        **rights,
    )
    return Server(Path(argv[0]).name, process, output)


async def end(process: Process) -> None:
    """Ask the process to end, and kill its whole session if it does not."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_DEADLINE):
                await process.wait()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def answers(target: Target) -> bool:
    """Whether somebody answers `GET /` there now."""
    connection = Connection(target)
    try:
        await connection.open()
        await connection.send(GET_ONCE)
        await connection.answer()
    except NoAnswer:
        return False
    finally:
        connection.close()
    return True
