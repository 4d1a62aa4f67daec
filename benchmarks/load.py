"""Mixed HTTP/1.1 load that counts what a reload does to requests and connections.

A request is *failed* when the client wrote it, or tried to connect for it, and got no
whole, correct answer of status 200. A connection is *closed* when the server ended it
between two requests, which HTTP/1.1 allows: the client connects again and nothing is lost.
A close that crosses a request already written is therefore a failure. A kept client is
*reconnected* when it opened a second connection, for whatever reason.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Self

from benchmarks.app import BODY
from benchmarks.connection import Answer, Connection, NoAnswer, Target
from benchmarks.report import FAILURES_KEPT, Failure, Loss, Report, Tally
from benchmarks.request_types import KINDS, Kind, Pace, Terms

__all__ = ["KINDS", "MIXED", "Failure", "Load", "Loss", "Mix", "Pace", "Report", "Tally", "Target"]

DEADLINE = 30.0  # seconds for one request, from connect to the last byte
RETRY = 0.05  # seconds; else a server that is away fails thousands of requests a second


@dataclass(frozen=True)
class Mix:
    """How many clients of each kind, for how many seconds each waits after an answer, and the pace of the slow ones.

    `think` is the mean of an exponential distribution. A client that always waited longer than
    a round trip would never write into a close that the server has not announced.
    """

    fresh: int = 0
    unread: int = 0
    half_head: int = 0
    keepalive: int = 0
    idle: int = 0
    pipelined: int = 0
    next_half: int = 0
    early: int = 0
    background: int = 0
    slow: int = 0
    upload: int = 0
    stream: int = 0
    chunked: int = 0
    think: float = 0.01
    pace: Pace = field(default_factory=Pace)

    @property
    def kept(self) -> int:
        """How many clients keep their connection."""
        return sum(getattr(self, name) for name, kind in KINDS.items() if kind.kept)


MIXED = Mix(
    fresh=4,
    unread=6,
    half_head=6,
    keepalive=8,
    idle=8,
    pipelined=4,
    next_half=6,
    early=4,
    background=4,
    slow=4,
    upload=4,
    stream=2,
    chunked=2,
)


@dataclass
class _Client:
    name: str
    kind: Kind
    terms: Terms
    connection: Connection
    ended: int = 0  # turns, failed or not
    generation: str = ""  # of the newest answer
    answered_on: int = 0  # which of its connections gave that
    alarm: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """End its pause, if it makes one."""
        if self.alarm is not None and not self.alarm.done():
            self.alarm.set_result(None)


class Load:
    """Clients that run from entering the context until stop(), which returns the report.

    The waits end with the request that meets them, or raise TimeoutError at the deadline.
    With `body=None` the answers of `/` and `/slow` may have any body of the declared length.
    `timed` is told of every correct turn: when it began (time.monotonic) and how long it took. `lost` is told of every
    failed request and of every connection that was closed.
    """

    def __init__(
        self,
        target: Target,
        mix: Mix = MIXED,
        *,
        seed: int = 0,
        body: bytes | None = BODY,
        timed: Callable[[float, float], None] | None = None,
        lost: Callable[[Loss], None] | None = None,
    ) -> None:
        self._think, self._silence, self._timed, self._lost = mix.think, mix.pace.silence, timed, lost
        self._demanded = ""  # a generation, while every kept connection is to answer from it
        self._clients = [
            _Client(name, kind, Terms(Random(f"{seed} {name} {number}"), mix.pace, body), Connection(target))
            for name, kind in KINDS.items()
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
        for client in self._clients:
            client.wake()
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
        """Wait until each client has ended `count` more turns, failed ones included.

        Silent ones are waited for only until their first: what they are for is to be silent.
        """
        goals = {id(c): max(c.ended, 1) if c.kind.silent else c.ended + count for c in self._clients}
        await self._until(
            _all(self._clients, lambda client: client.ended >= goals[id(client)]),
            deadline,
            f"{count} turns of every client",
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
            _all(clients, lambda client: client.generation == generation),
            deadline,
            f"generation {generation} on every connection",
        )

    async def every_kept_connection_answers(
        self, generation: str, deadline: float = DEADLINE, *, but: Collection[str] = ()
    ) -> None:
        """Wait until the newest answer of each kept client is from `generation`, `but` for some kinds.

        Whoever pauses asks at once, and goes on asking without long silences until that generation answers.
        The TimeoutError names those who are still answered by another.
        """
        clients = [client for client in self._clients if client.kind.kept and client.name not in but]
        if not clients:
            raise ValueError(f"no kept clients: nothing would be proven of {generation}")
        self._demanded = generation
        try:
            for client in clients:
                if client.generation != generation:
                    client.wake()
            await self._until(
                _all(clients, lambda client: client.generation == generation),
                deadline,
                f"generation {generation} on every kept connection",
            )
        except TimeoutError as error:
            others = Counter(
                f"{client.name} by {client.generation or 'nobody'}"
                for client in clients
                if client.generation != generation
            )
            late = ", ".join(f"{count} {who}" for who, count in others.items())
            raise TimeoutError(f"{error}; answered last: {late}") from None
        finally:
            self._demanded = ""

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
        kind, connection = client.kind, client.connection
        try:
            while not self._stopping.is_set():
                answers = await self._ask(client)
                if not answers or not kind.kept:
                    connection.close()
                elif any(answer.closes for answer in answers):
                    self._close(client, "the answer says that it closes")
                await self._pause(client, self._pause_after(client) if answers else RETRY)
                if connection.ended_by_server():
                    self._close(client, "closed between two requests")
        finally:
            connection.close()

    async def _ask(self, client: _Client) -> Sequence[Answer]:
        """Let the client take its turn and enter what became of it; nothing is returned of a failed one."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(DEADLINE):
                if await client.connection.open() and client.kind.kept and client.connection.opened == 2:
                    self._report.kinds[client.name].reconnected += 1
                answers = await client.kind.ask(client.connection, client.terms)
        except NoAnswer as error:
            self._fail(client, str(error))
            return ()
        except TimeoutError:
            self._fail(client, f"deadline of {DEADLINE:g} s passed")
            return ()
        now = time.monotonic()
        if not self._stopping.is_set():
            self._note_gap(now)
        self._answered = now
        if self._timed:
            self._timed(begun, now - begun)
        for answer in answers:
            self._note_generation(client, answer.headers.get("x-gen", ""))
        self._end(client, len(answers))
        return answers

    def _note_generation(self, client: _Client, generation: str) -> None:
        if not generation:
            return
        opened = client.connection.opened
        if client.generation != generation and client.answered_on == opened:
            self._report.crossed += 1
        client.generation, client.answered_on = generation, opened
        self._report.generations[generation] += 1

    def _close(self, client: _Client, how: str) -> None:
        """The server ends the connection of a client that would have kept it."""
        self._report.kinds[client.name].closed += 1
        self._note_loss(client, how)
        client.connection.close()

    def _note_loss(self, client: _Client, how: str) -> None:
        if self._lost:
            self._lost(Loss(client.name, client.connection.port, client.connection.since, time.monotonic(), how))

    def _fail(self, client: _Client, reason: str) -> None:
        report, phase = self._report, client.connection.phase
        self._note_loss(client, f"{phase}: {reason}")
        report.kinds[client.name].failed += 1
        report.reasons[f"{phase}: {reason}"] += 1
        if len(report.failures) < FAILURES_KEPT:
            at = round(time.monotonic() - self._started, 3)
            report.failures.append(Failure(client.name, phase, reason, at))
        self._end(client, 1)

    def _end(self, client: _Client, requests: int) -> None:
        client.ended += 1
        self._report.kinds[client.name].requests += requests
        for met, future in self._waits:
            if not future.done() and met():
                future.set_result(None)

    def _note_gap(self, now: float) -> None:
        self._report.longest_gap = max(self._report.longest_gap, now - self._answered)

    def _pause_after(self, client: _Client) -> float:
        random = client.terms.random
        if client.kind.silent and self._demanded in ("", client.generation):
            return random.uniform(0, 2 * self._silence)
        return random.expovariate(1 / self._think) if self._think else 0.0

    async def _pause(self, client: _Client, seconds: float) -> None:
        """Wait until the time is over or somebody wakes the client; the end of the load does."""
        if not seconds or self._stopping.is_set():
            # A client without pauses still lets every other one have its turn, and the timers theirs.
            return await asyncio.sleep(0)
        client.alarm = asyncio.get_running_loop().create_future()
        timer = asyncio.get_running_loop().call_later(seconds, client.wake)
        try:
            await client.alarm
        finally:
            timer.cancel()
            client.alarm = None


def _all(clients: Iterable[_Client], done: Callable[[_Client], bool]) -> Callable[[], bool]:
    """Whether all are done; to be asked after every request, so it looks at those only who were not, one at a time."""
    everybody = list(clients)
    left = everybody.copy()

    def met() -> bool:
        while left and done(left[-1]):
            left.pop()
        if not left:
            left.extend(client for client in everybody if not done(client))
        return not left

    return met
