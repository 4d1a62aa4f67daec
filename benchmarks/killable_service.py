"""A stillup whose supervisor and workers may be killed: another supervisor takes over, and whoever is left is found."""

import secrets
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO

from benchmarks.connection import Target
from benchmarks.control import Control
from benchmarks.processes import hold, workers
from benchmarks.server import Server, ServerFailed, command, end, start

APP = "benchmarks.app:app"
WORKERS = 2
ORPHANS = 60
"""Seconds that workers serve on without a supervisor: more than any measurement leaves them alone."""


class KillableService:
    """One service in one runtime directory, under one supervisor after the other."""

    def __init__(self, stillup: Path, directory: str, output: IO[bytes]) -> None:
        self.title = f"killable-{secrets.token_hex(6)}"
        self.control = Control(f"{directory}/run")
        options = (
            f"run {APP} --bind 127.0.0.1:0 --workers {WORKERS} --name {self.title} "
            f"--runtime-dir {self.control.directory} --health-path /healthz --no-access-log --orphan-timeout {ORPHANS}"
        )
        self._argv = [str(stillup), *options.split()]
        self._output = output
        self.server: Server
        """The supervisor of the moment."""

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self.server.process.pid

    async def launch(self) -> None:
        """Start a supervisor, the first or another."""
        self.server = await start(self._argv, self._output)

    async def start(self) -> Target:
        """Start a supervisor, and wait until it serves.

        Raises:
            ServerFailed: it does not.
        """
        await self.launch()
        return await self.control.serving(self.server)

    async def kill(self) -> None:
        """Kill the supervisor, and return when it is gone."""
        self.server.process.kill()
        await self.server.process.wait()

    def workers_of(self, generation: int) -> set[int]:
        """The pids of the workers of a generation that live."""
        return {worker.pid for worker in workers(self.title) if worker.generation == generation}

    async def end(self) -> int:
        """Stop the service; how many workers had to be killed because they outlived that."""
        await end(self.server.process)
        left = workers(self.title)
        for worker in left:
            with ExitStack() as stack:
                try:
                    grip = stack.enter_context(hold(worker.pid))
                except ProcessLookupError:
                    continue
                await grip.kill()
        return len(left)


@asynccontextmanager
async def killable_service() -> AsyncIterator[tuple[KillableService, Target]]:
    """Start one and end it.

    Raises:
        ServerFailed: it cannot be started, or leaves a worker behind.
    """
    stillup = command("stillup")
    if stillup is None:
        raise ServerFailed("stillup is not installed beside this Python")
    with TemporaryDirectory(prefix="killable-") as directory, TemporaryFile() as output:
        service = KillableService(stillup, directory, output)
        try:
            yield service, await service.start()
        except BaseException:
            await service.end()
            raise
        if left := await service.end():
            raise service.server.failed(f"left {left} workers behind")
