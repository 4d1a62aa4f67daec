"""A stillup that is measured: its control socket, and the ends of its processes."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from benchmarks.connection import Connection, NoAnswer, Target
from benchmarks.server import POLL, START_DEADLINE, Server


@dataclass(frozen=True)
class Control:
    """The stillup whose runtime directory is `directory`.

    Asked by the load's own connection: the command would take a Python's start of the processor that is measured.
    """

    directory: str

    async def serving(self, server: Server) -> Target:
        """Wait until it serves, and return its first listener."""
        try:
            async with asyncio.timeout(START_DEADLINE):
                while (status := await self.status()).get("state") != "serving":
                    server.check()
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise server.failed(f"did not serve within {START_DEADLINE:g} s") from None
        return Target.parse(status["listeners"][0]["address"])

    async def status(self) -> dict[str, Any]:
        """The whole service as the control API shows it; nothing of one that is not there."""
        try:
            return dict(json.loads(await self._call("GET /v1/status")))
        except NoAnswer:
            return {}

    async def rollout(self, number: int) -> dict[str, Any]:
        """A rollout as the control API shows it.

        Raises:
            NoAnswer: it is not known, or nobody is there.
        """
        return dict(json.loads(await self._call(f"GET /v1/rollouts/{number}")))

    async def until(self, met: Callable[[dict[str, Any]], bool], deadline: float, what: str) -> dict[str, Any]:
        """Wait until something is so of the status, and return it.

        Raises:
            TimeoutError: it is not within `deadline` seconds; the text says `what` was waited for.
        """
        try:
            async with asyncio.timeout(deadline):
                while not met(status := await self.status()):  # noqa: ASYNC110 - it is another process that knows
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise TimeoutError(f"not within {deadline:g} s: {what}") from None
        return status

    async def serves_alone(self, generation: int, workers: int, deadline: float) -> None:
        """Wait until that generation serves with so many workers, and nobody else is there.

        Raises:
            TimeoutError: it is not so within `deadline` seconds.
        """
        wanted = [(generation, "serving")] * workers
        what = f"only the {workers} workers of generation {generation} are there, and serve"
        await self.until(lambda status: _workers(status) == wanted, deadline, what)

    async def pids(self) -> set[int]:
        """The processes of all workers that there are."""
        status = json.loads(await self._call("GET /v1/status"))
        return {w["pid"] for g in status["generations"] for w in g["workers"] if w["pid"] is not None}

    async def reload(self) -> dict[str, Any]:
        """Reload until the cut-over, and return the rollout as the control API shows it.

        Raises:
            NoAnswer: the reload was rejected.
        """
        return dict(json.loads(await self._call("POST /v1/reload?wait=true")))

    async def change(self, what: str) -> None:
        """Ask for a change, such as ``scale?workers=3``.

        Raises:
            NoAnswer: it was refused.
        """
        await self._call(f"POST /v1/{what}")

    async def _call(self, line: str) -> bytes:
        connection = Connection(Target.parse(f"unix:{self.directory}/control.sock"))
        try:
            await connection.open()
            await connection.send(f"{line} HTTP/1.1\r\nHost: stillup\r\nContent-Length: 0\r\n\r\n".encode())
            return (await connection.answer()).body
        finally:
            connection.close()


def _workers(status: dict[str, Any]) -> list[tuple[int, str]]:
    return [(g["id"], w["state"]) for g in status.get("generations", []) for w in g["workers"]]


class Exits:
    """The ends of processes, to be made while they live: the kernel tells of each, nobody polls."""

    def __init__(self, pids: Collection[int]) -> None:
        self._alive: dict[int, int] = {}  # pid: pidfd
        self._all_gone = asyncio.Event()
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            self._alive[pid] = descriptor
            asyncio.get_running_loop().add_reader(descriptor, self._exited, pid)
        self._note()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid in list(self._alive):
            self._exited(pid)

    async def all(self, deadline: float) -> float:
        """Wait until all have ended, and return the seconds that it took; a TimeoutError names those who have not."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(deadline):
                await self._all_gone.wait()
        except TimeoutError:
            alive = ", ".join(map(str, self._alive))
            raise TimeoutError(f"old processes: not gone within {deadline:.1f} s: {alive}") from None
        return time.monotonic() - begun

    def _exited(self, pid: int) -> None:
        descriptor = self._alive.pop(pid)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self._note()

    def _note(self) -> None:
        if not self._alive:
            self._all_gone.set()
