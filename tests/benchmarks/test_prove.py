"""The proof holds for a server that moves everybody, and fails for each way of not doing so."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from benchmarks.drop import Noticed, prove
from benchmarks.load import Mix, Pace, Report, Target
from tests.benchmarks.fake_server import Answering

MIX = Mix(keepalive=3, idle=2, pace=Pace(silence=600))


@dataclass
class Reloading(Answering):
    """Pretends to reload: another generation in its answers, another process for a worker."""

    processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    rejects: int = 0
    """The number of the reload that is rejected."""
    reloads: int = 0

    async def spawn(self) -> None:
        self.processes.append(await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=-1))

    async def pids(self) -> set[int]:
        return {process.pid for process in self.processes}

    async def reload(self) -> str:
        self.reloads += 1
        if self.reloads != self.rejects:
            old = self.processes.pop()
            await self.spawn()
            self.generation = str(self.reloads + 1)
            await self.retire(old)
        return self.generation

    async def retire(self, old: asyncio.subprocess.Process) -> None:
        old.kill()
        await old.wait()


@asynccontextmanager
async def _served(server: Reloading) -> AsyncIterator[Target]:
    await server.spawn()
    try:
        async with server.serving() as target:
            yield target
    finally:
        for process in server.processes:
            process.kill()
            await process.wait()


async def _prove(server: Reloading, reloads: int = 3, soon: float = 20.0) -> Report:
    async with _served(server) as target:
        return await prove(target, server.reload, server.pids, MIX, reloads=reloads, soon=soon, patience=20)


def _good() -> Reloading:
    server = Reloading(lambda _: server.ok())
    return server


async def test_it_holds_when_everybody_moves() -> None:
    """Every kept connection crosses in every reload; one that is rejected leaves all where they are."""
    server = _good()
    server.rejects = 2
    report = await _prove(server, reloads=4)
    assert report.crossed == 5 * 3
    assert list(report.generations) == ["1", "2", "4", "5"]


async def test_an_old_process_that_stays_is_noticed() -> None:
    class Staying(Reloading):
        async def retire(self, old: asyncio.subprocess.Process) -> None:
            self.processes.append(old)

    server = Staying(lambda _: server.ok())
    with pytest.raises(Noticed, match=r"reload 1: old processes: not gone within 0.5 s: \d+;"):
        await _prove(server, soon=0.5)


async def test_answers_of_the_old_generation_are_noticed() -> None:
    """The silent connections are asked too: only they are left behind here."""
    first = Answering(lambda _: first.ok())

    class Hoarding(Reloading):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            serve = first.serve if self.connections > MIX.keepalive else super().serve
            await serve(reader, writer)

        connections = 0

    server = Hoarding(lambda _: server.ok())
    with pytest.raises(Noticed, match=r"generation 2 on every kept connection: .* answered last: 2 idle by 1;"):
        await _prove(server, soon=4.0)  # in which the others have moved, also if the machine stands still


async def test_a_closed_connection_is_noticed() -> None:
    """At once, not after all the reloads."""

    def answer(_: str) -> bytes:
        return server.ok(b"ok\n", "connection: close") if server.generation == "2" else server.ok()

    server = Reloading(answer)
    with pytest.raises(Noticed, match=r"reload 1; 0 of .*\n  closed: \d+ keepalive"):
        await _prove(server)
