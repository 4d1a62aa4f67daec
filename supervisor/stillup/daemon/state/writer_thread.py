"""A thread that writes, so that a disk makes nobody wait for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec

from stillup.daemon.state.thread_wait import are_done
from stillup.host.processes import block_handled

P = ParamSpec("P")

PATIENCE: Final = 1.0
"""Seconds that a write may take before things go on all the same: a disk that hangs must not stop us."""
SLOW: Final = "the disk does not answer"


class Writer:
    """One thread, one write at a time."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=block_handled)
        self._writing: asyncio.Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a write that nobody waits for any more is still under way."""
        return self._writing is not None and not self._writing.done()

    async def write(self, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> str:
        """Have the thread do it; why it could not, or SLOW, or nothing. While it is busy nothing is done."""
        if self.busy:
            return SLOW
        try:
            work = partial(function, *args, **kwargs)
            writing = self._writing = asyncio.get_running_loop().run_in_executor(self._thread, work)
        except RuntimeError as error:  # no thread can be started
            return str(error)
        writing.add_done_callback(_heard)
        return _why(writing.exception()) if await are_done({writing}, PATIENCE) else SLOW

    async def settled(self, patience: float) -> bool:
        """Whether there comes a moment, within so many seconds, in which no write is under way."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + patience
        while (writing := self._writing) is not None and not writing.done() and loop.time() < ends:
            await asyncio.wait({writing}, timeout=ends - loop.time())
        return not self.busy

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _why(error: BaseException | None) -> str:
    if error is None:
        return ""
    return (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"


def _heard(writing: asyncio.Future[None]) -> None:
    """Have a failure that nobody waited for any more heard of."""
    if not writing.cancelled():
        writing.exception()
