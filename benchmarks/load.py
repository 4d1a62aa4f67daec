"""Mixed HTTP/1.1 load that counts what a reload does to requests and connections.

A request is *failed* when the client wrote it, or tried to connect for it, and got no
whole, correct answer of status 200. A connection is *closed* when the server ended it
between two requests, which HTTP/1.1 allows: the client connects again and nothing is lost.
A close that crosses a request already written is therefore a failure.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Any, Self

from benchmarks.app import BODY
from benchmarks.connection import Answer, Connection, NoAnswer, Target
from benchmarks.kinds import KINDS, Kind

__all__ = ["KINDS", "MIXED", "Failure", "Load", "Mix", "Report", "Tally", "Target"]

DEADLINE = 30.0  # seconds for one request, from connect to the last byte
FAILURES_KEPT = 200
RETRY = 0.05  # seconds; else a server that is away fails thousands of requests a second


@dataclass(frozen=True)
class Mix:
    """How many clients of each kind, and for how many seconds each waits after an answer.

    `think` is the mean of an exponential distribution. A client that always waited longer than
    a round trip would never write into a close that the server has not announced.
    """

    fresh: int = 0
    unread: int = 0
    half_head: int = 0
    keepalive: int = 0
    slow: int = 0
    upload: int = 0
    stream: int = 0
    think: float = 0.01


MIXED = Mix(fresh=4, unread=6, half_head=6, keepalive=8, slow=6, upload=4, stream=4)


@dataclass
class Tally:
    """Requests that came to an end, those of them that failed, and idle connections closed."""

    requests: int = 0
    failed: int = 0
    closed: int = 0


@dataclass(frozen=True)
class Failure:
    """One failed request; `at` is in seconds since the load started."""

    kind: str
    phase: str
    reason: str
    at: float


@dataclass
class Report:
    """What the clients saw. `longest_gap` is the longest time without a correct answer."""

    kinds: dict[str, Tally]
    failures: list[Failure] = field(default_factory=list)  # the first FAILURES_KEPT
    reasons: Counter[str] = field(default_factory=Counter)  # of all, as "phase: reason"
    generations: Counter[str] = field(default_factory=Counter)  # answers by `x-gen`
    longest_gap: float = 0.0
    duration: float = 0.0

    @property
    def requests(self) -> int:
        return sum(tally.requests for tally in self.kinds.values())

    @property
    def failed(self) -> int:
        return sum(tally.failed for tally in self.kinds.values())

    @property
    def closed(self) -> int:
        return sum(tally.closed for tally in self.kinds.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        return {
            "requests": self.requests,
            "failed": self.failed,
            "closed": self.closed,
            "longest_gap": round(self.longest_gap, 4),
            "duration": round(self.duration, 3),
            "kinds": {name: vars(tally) for name, tally in self.kinds.items()},
            "reasons": dict(self.reasons),
            "generations": dict(self.generations),
            "failures": [vars(failure) for failure in self.failures],
        }

    def __str__(self) -> str:
        text = f"{self.failed} of {self.requests} requests failed, {self.closed} closed"
        reasons = (f"{count} x {reason}" for reason, count in self.reasons.most_common(5))
        return f"{text} ({', '.join(reasons)})" if self.reasons else text


@dataclass
class _Client:
    name: str
    random: Random
    connection: Connection
    ended: int = 0  # requests, failed or not
    generation: str = ""  # of the newest answer


class Load:
    """Clients that run from entering the context until stop(), which returns the report.

    The waits end with the request that meets them, or raise TimeoutError at the deadline.
    With `body=None` the answers of `/` and `/slow` may have any body of the declared length.
    """

    def __init__(self, target: Target, mix: Mix = MIXED, *, seed: int = 0, body: bytes | None = BODY) -> None:
        self._think, self._body = mix.think, body
        self._clients = [
            _Client(name, Random(f"{seed} {name} {number}"), Connection(target))
            for name in KINDS
            for number in range(getattr(mix, name))
        ]
        self._report = Report({name: Tally() for name in KINDS if getattr(mix, name)})
        self._stopping = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], _Client] = {}
        self._waits: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._started = self._answered = 0.0

    @property
    def report(self) -> Report:
        """The live counters; gap and duration stand still once stop() is called."""
        if not self._stopping.is_set():
            now = time.monotonic()
            self._report.duration = now - self._started
            self._note_gap(now)
        return self._report

    async def __aenter__(self) -> Self:
        self._started = self._answered = time.monotonic()
        self._tasks = {asyncio.create_task(self._run(client)): client for client in self._clients}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.stop()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self, deadline: float = DEADLINE) -> Report:
        """Let every request in flight end, and return the report.

        What is unfinished after `deadline` seconds is failed.
        """
        report = self.report
        self._stopping.set()
        if self._tasks:
            done, late = await asyncio.wait(self._tasks, timeout=deadline)
            for task in late:
                task.cancel()
                self._fail(self._tasks[task], "unfinished when the load ended")
            await asyncio.gather(*late, return_exceptions=True)
            self._tasks.clear()
            for task in done:
                task.result()
        return report

    async def wait_requests(self, count: int, deadline: float = DEADLINE) -> None:
        """Wait until `count` more requests have ended, failed ones included."""
        goal = self._report.requests + count
        await self._until(lambda: self._report.requests >= goal, deadline, f"{count} requests")

    async def wait_every_client(self, count: int = 1, deadline: float = DEADLINE) -> None:
        """Wait until each client has ended `count` more requests, failed ones included."""
        goals = [(client, client.ended + count) for client in self._clients]
        await self._until(
            lambda: all(client.ended >= goal for client, goal in goals),
            deadline,
            f"{count} requests of every client",
        )

    async def wait_new_generations(self, known: Collection[str], count: int = 1, deadline: float = DEADLINE) -> None:
        """Wait until `count` generations that are not in `known` have answered."""
        known = frozenset(known)
        await self._until(
            lambda: len(self._report.generations.keys() - known) >= count,
            deadline,
            f"{count} new generations",
        )

    async def every_connection_answers(self, generation: str, deadline: float = DEADLINE) -> None:
        """Wait until the newest answer on each keep-alive client is from `generation`."""
        clients = [client for client in self._clients if client.name == "keepalive"]
        if not clients:
            raise ValueError(f"no keepalive clients: nothing would be proven of {generation}")
        await self._until(
            lambda: all(client.generation == generation for client in clients),
            deadline,
            f"generation {generation} on every connection",
        )

    async def _until(self, met: Callable[[], bool], deadline: float, what: str) -> None:
        if met():
            return
        wait = met, asyncio.get_running_loop().create_future()
        self._waits.append(wait)
        try:
            async with asyncio.timeout(deadline):
                await wait[1]
        except TimeoutError:
            raise TimeoutError(f"{what}: not within {deadline:g} s; {self.report}") from None
        finally:
            self._waits.remove(wait)

    async def _run(self, client: _Client) -> None:
        kind, connection = KINDS[client.name], client.connection
        tally = self._report.kinds[client.name]
        try:
            while not self._stopping.is_set():
                answer = await self._ask(client, kind)
                if answer is None or not kind.keeps_connection:
                    connection.close()
                elif answer.closes:
                    tally.closed += 1
                    connection.close()
                await self._pause(self._think_time(client.random) if answer else RETRY)
                if connection.ended_by_server():
                    tally.closed += 1
                    connection.close()
        finally:
            connection.close()

    async def _ask(self, client: _Client, kind: Kind) -> Answer | None:
        """Make one request and enter what became of it."""
        try:
            async with asyncio.timeout(DEADLINE):
                await client.connection.open()
                await kind.send(client.connection, client.random)
                answer = await client.connection.answer()
            self._check(kind, answer)
        except NoAnswer as error:
            self._fail(client, str(error))
            return None
        except TimeoutError:
            self._fail(client, f"deadline of {DEADLINE:g} s passed")
            return None
        now = time.monotonic()
        if not self._stopping.is_set():
            self._note_gap(now)
        self._answered = now
        if generation := answer.headers.get("x-gen"):
            client.generation = generation
            self._report.generations[generation] += 1
        self._end(client)
        return answer

    def _check(self, kind: Kind, answer: Answer) -> None:
        correct = kind.correct(answer) if kind.correct else self._body in (None, answer.body)
        if not correct:
            raise NoAnswer(f"wrong body: {answer.body[:40]!r}")

    def _fail(self, client: _Client, reason: str) -> None:
        report, phase = self._report, client.connection.phase
        report.kinds[client.name].failed += 1
        report.reasons[f"{phase}: {reason}"] += 1
        if len(report.failures) < FAILURES_KEPT:
            at = round(time.monotonic() - self._started, 3)
            report.failures.append(Failure(client.name, phase, reason, at))
        self._end(client)

    def _end(self, client: _Client) -> None:
        client.ended += 1
        self._report.kinds[client.name].requests += 1
        for met, future in self._waits:
            if not future.done() and met():
                future.set_result(None)

    def _note_gap(self, now: float) -> None:
        self._report.longest_gap = max(self._report.longest_gap, now - self._answered)

    def _think_time(self, random: Random) -> float:
        return random.expovariate(1 / self._think) if self._think else 0.0

    async def _pause(self, seconds: float) -> None:
        """Wait, or return at once when the load is stopping."""
        if not seconds:
            return await asyncio.sleep(0)
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass
