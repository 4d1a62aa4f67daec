"""Looks at the service's disk: in a thread, and one at a time.

A disk that hangs is to take one thread, and not all that there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import ParamSpec, TypeVar

import msgspec

from stillup.core.events import Configured
from stillup.core.model import Release
from stillup.core.states import RolloutState
from stillup.daemon.settings.config import Settings
from stillup.daemon.settings.config_reader import ConfigReader
from stillup.daemon.settings.release_resolver import resolve
from stillup.errors import Refused
from stillup.host.fingerprint import fingerprint
from stillup.host.processes import LIMIT
from stillup.wire.address import Bind

P = ParamSpec("P")
T = TypeVar("T")


class Resolved(msgspec.Struct, frozen=True):
    """What a reload is to run, and how the service is configured from then on."""

    release: Release
    configured: Configured | None = None
    binds: Sequence[Bind] = ()
    """Where it listens."""
    accepted: Callable[[int], None] = lambda _: None
    """Is told the number of the rollout that is made of it."""


class Disk:
    """The disk as far as one service is concerned."""

    def __init__(
        self,
        settings: Settings,
        hold: Callable[[Sequence[Bind]], AbstractAsyncContextManager[None]] = lambda _: nullcontext(),
        reader: ConfigReader | None = None,
        state_of: Callable[[int], RolloutState | None] = lambda _: None,
    ) -> None:
        """Look for what settings name.

        Args:
            settings: of the start.
            hold: has listeners for these binds, and their socket files, while a rollout is asked for.
            reader: reads the configuration again at each reload; None: it is not.
            state_of: the state of a rollout, if it is known.
        """
        self.hold = hold
        self._settings = settings
        self._reader = reader
        self._state_of = state_of
        self._looking = asyncio.Lock()

    async def resolve(self) -> Resolved:
        """What a reload is to run now.

        Raises:
            Refused: something that it needs is not there, or the configuration means nothing.
        """
        async with self._looking:
            reader = self._reader
            if reader is None:
                return Resolved(await in_thread(resolve, self._settings))
            reader.settle(self._state_of)
            before = reader.settings
            reading = await in_thread(reader.read)
            release = await in_thread(resolve, reading.settings)
        binds = reading.settings.binds
        return Resolved(release, reading.configured(before), binds, lambda number: reader.accepted(number, reading))

    async def look(self, release: Release) -> str:
        """The fingerprint that a release has now.

        Raises:
            Refused: no thread can be started.
        """
        async with self._looking:
            return await in_thread(fingerprint, release.directory)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Let it block a thread.

    Raises:
        Refused: none can be started; and what the function raises.
    """
    try:
        done = asyncio.get_running_loop().run_in_executor(None, partial(function, *args, **kwargs))
    except RuntimeError as error:  # it is threading's
        raise Refused(f"this needs a thread: {error} ({LIMIT})", code="unavailable") from error
    return await done
