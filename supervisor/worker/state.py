"""What an app sees of stillup: ``scope["state"]["stillup"]``, in its lifespan and in every request."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import dataclass, field


class Draining:
    """``await state.stillup.draining`` returns when this worker begins to drain; ``if state.stillup.draining`` asks."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def __await__(self) -> Generator[object, None, None]:
        return self._wait().__await__()

    def __bool__(self) -> bool:
        return self._event.is_set()

    async def _wait(self) -> None:
        await self._event.wait()

    def begin(self) -> None:
        self._event.set()


@dataclass(frozen=True)
class Stillup:
    """Who serves this request."""

    generation: int
    worker: int
    """The slot: 1 for worker ``3.1``."""
    draining: Draining = field(default_factory=Draining)
