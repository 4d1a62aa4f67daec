"""Looks at the service's disk: in a thread, and one at a time.

A disk that hangs is to take one thread, and not all that there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from supervisor.core.model import Release
from supervisor.daemon.config import Settings
from supervisor.daemon.release import resolve
from supervisor.errors import Refused
from supervisor.host.fingerprint import fingerprint
from supervisor.host.processes import LIMIT

P = ParamSpec("P")
T = TypeVar("T")


class Disk:
    """The disk as far as one service is concerned."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._looking = asyncio.Lock()

    async def resolve(self) -> Release:
        """What a reload is to run now.

        Raises:
            Refused: something that it needs is not there.
        """
        async with self._looking:
            return await in_thread(resolve, self._settings)

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
        raise Refused(f"cannot look at the disk: {error} ({LIMIT})", code="unavailable") from error
    return await done
