"""What an app sees of stillup: ``current()``, which is ``scope["state"]["stillup"]`` as well."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any, Final, Self

from stillup.asgi.resumption import RESUMING

HANDOFF: Final = "STILLUP_HANDOFF"
"""The variable that a worker has, and what it starts."""
_AWAIT: Final = "await"
_BLOCK: Final = "async with"
CHILD: Final = "this process was started by a worker of stillup, and can't lead: wait for the leader in the worker"


class Told:
    """What a worker is told once: ``await`` it, and it returns when it was; ``if`` asks."""

    def __init__(self) -> None:
        self._told = False
        self._waiting: set[asyncio.Future[None]] = set()
        """Each of its own loop: outside stillup a process may have one after the other, as a test suite does."""

    def __await__(self) -> Generator[object, None, None]:
        return self._wait().__await__()

    def __bool__(self) -> bool:
        return self._told

    async def _wait(self) -> None:
        if self._told:
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(place)
        try:
            await place
        finally:
            self._waiting.discard(place)

    def begin(self) -> None:
        self._told = True
        for place in self._waiting:
            if not place.done():
                place.set_result(None)


class Draining(Told):
    """``await state.stillup.draining`` returns when this worker begins to drain; ``if state.stillup.draining`` asks."""

    def __init__(self, shown: dict[str, Any] | None = None) -> None:
        """``shown`` says the same to who cannot ask."""
        super().__init__()
        self._shown = shown if shown is not None else {}

    def begin(self) -> None:
        self._shown["draining"] = True
        super().begin()

    def over(self) -> None:
        """It drains no more: whoever waits from here on is told of the next time."""
        self._shown["draining"] = False
        self._told = False


class Leader:
    """Of all workers of all generations at most one leads, as long as something in it has asked for that.

    ``async with current().leader as leader:`` waits until this worker leads, and lets go at the end. Inside, ``await
    leader.ends`` returns when it is told to let go: the block is to end soon (``--leader-timeout``). ``await
    current().leader`` waits as well; ``let_go()`` ends that. Whoever asks in a worker that drains waits for ever: it
    does not come to lead any more.
    """

    def __init__(self, shown: dict[str, Any] | None = None, refusal: str = "") -> None:
        """Lead when told to.

        Args:
            shown: says whether it leads to who cannot ask.
            refusal: why it never will.
        """
        self._shown = shown if shown is not None else {}
        self._refusal = refusal
        self._waiting: dict[asyncio.Future[None], str] = {}
        self._inside: Counter[str] = Counter()
        """How many have entered in which way."""
        self._told = False
        self.ends = Told()
        """Told when this worker is to let go; each time that it comes to lead it is another."""
        self.retired = False
        """Whether this worker drains, and so does not come to lead any more."""
        self.changed: Callable[[], None] = lambda: None
        """Called when somebody waits or lets go."""

    @property
    def leads(self) -> bool:
        """Whether this worker leads, and was not told to let go."""
        return self._told and not self.ends

    @property
    def waits(self) -> bool:
        """Whether somebody waits to lead."""
        return bool(self._waiting)

    @property
    def inside(self) -> int:
        """How many lead, or have yet to let go."""
        return self._inside.total()

    def __await__(self) -> Generator[object, None, Leader]:
        return self._enter().__await__()

    async def __aenter__(self) -> Self:
        return await self._enter(_BLOCK)

    async def __aexit__(self, *_: object) -> None:
        self._leave(_BLOCK)

    def let_go(self) -> None:
        """End what an ``await`` of this has begun; a block ends by itself. With the last this worker leads no more."""
        self._leave(_AWAIT)

    def _leave(self, way: str) -> None:
        self._inside[way] = max(0, self._inside[way] - 1)
        self.changed()

    async def _enter(self, way: str = _AWAIT) -> Self:
        """Wait until this worker leads.

        Raises:
            RuntimeError: it is a process that never will.
        """
        if self._refusal:
            raise RuntimeError(self._refusal)
        if self.leads:
            self._inside[way] += 1
            return self
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[place] = way
        self.changed()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave(way)  # it had just come to lead
            raise
        finally:
            del self._waiting[place]
            self.changed()
        return self

    # What the worker says

    def begin(self) -> None:
        """Lead from here on, with all who wait."""
        self._told = self._shown["leader"] = True
        self.ends = Told()
        waiting = {place: way for place, way in self._waiting.items() if not place.done()}
        self._inside.update(waiting.values())
        for place in waiting:
            place.set_result(None)

    def end(self) -> None:
        """Say that this worker is to let go."""
        self._shown["leader"] = False
        self.ends.begin()

    def over(self) -> None:
        """Lead no more; unless this worker drains it may be told to lead again."""
        self._told = self._shown["leader"] = False
        if not self.retired:
            self.ends = Told()

    def forked(self) -> None:
        """Be that of a child which the app forks: what its worker was told is not for it."""
        self.over()
        self._refusal = CHILD
        self.changed = lambda: None

    def serve_again(self) -> None:
        """May be told to lead again: this worker drains no more."""
        self.retired = False
        if not self._told:
            self.ends = Told()
        self.changed()

    def retire(self) -> None:
        """Let go, and do not come to lead any more: this worker drains."""
        self.retired = True
        self.end()
        self.changed()


class ShutdownFlag:
    """What stands behind SIGTERM's handler where uvicorn's server would, for libraries that ask it.

    sse-starlette does, twice a second, and ends its streams once ``should_exit`` is true. It is at a stop, as with
    uvicorn; not at a reload, where an answer under way has its time.
    """

    should_exit = False

    def handle(self, *_: object) -> None:
        """Do nothing: the loop hears of the signal by itself."""

    def install(self) -> None:
        """Stand there; after the loop's own handler was, which Python would call."""
        signal.signal(signal.SIGTERM, self.handle)
        signal.siginterrupt(signal.SIGTERM, False)


class Stillup(dict[str, Any]):
    """Who serves this request. To JSON it is an object of these, so that an app can dump its state."""

    def __init__(self, generation: int, worker: int, *, refusal: str = "") -> None:
        """Say who this is.

        Args:
            generation: 0 where there is none.
            worker: the slot: 1 for worker ``3.1``.
            refusal: why this never leads.
        """
        super().__init__(generation=generation, worker=worker, draining=False, leader=False)
        self.draining = Draining(self)
        self.leader = Leader(self, refusal)
        self.shutdown = ShutdownFlag()

    @property
    def generation(self) -> int:
        return int(self["generation"])

    @property
    def worker(self) -> int:
        """The slot."""
        return int(self["worker"])

    @property
    def resuming(self) -> bool:
        """Whether the request under way is made again, so that its app goes on with what another worker's began.

        True before the app, with its middleware and dependencies, runs for it. What must not happen twice asks.
        """
        return RESUMING.get()


_here: list[Stillup] = []
"""The one of this process, once there is one."""


def be_current(stillup: Stillup) -> Stillup:
    """Be what ``current()`` gives in this process."""
    _here[:] = [stillup]
    return stillup


def was_asked() -> bool:
    """Whether ``current()`` was asked for in this process, or it is a worker."""
    return bool(_here)


def current() -> Stillup:
    """Which worker this is, whether it drains, and whether it leads.

    Without stillup it is worker 0 of generation 0, which never drains, and leads at once. A process that a worker has
    started is none, and never leads.
    """
    if _here:
        return _here[0]
    stillup = be_current(Stillup(0, 0, refusal=CHILD if HANDOFF in os.environ else ""))
    if HANDOFF not in os.environ:
        stillup.leader.begin()
    return stillup
