"""Hot reload: a change of source is a reload like any other."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import watchfiles

from stillup.asgi.uvicorn_config import watch_filter
from stillup.host import terminal

logger = logging.getLogger("stillup")

PAUSE: Final = 0.1
"""Seconds between two looks at whether a debugger still has the terminal."""


async def watch(options: Mapping[str, Any], reload: Callable[[str], Awaitable[None]]) -> None:
    """Call ``reload`` with what changed, once for each burst of changes. Runs until it is cancelled.

    Args:
        options: uvicorn's ``reload_dirs``, ``reload_includes`` and ``reload_excludes``, and ``reload_delay``: the
            seconds of quiet that end a burst.
        reload: asks for a reload; must not raise.
    """
    rest = dict(options)
    quiet = max(1, int(rest.pop("reload_delay") * 1000))
    directories, counts = watch_filter(rest)
    here = os.getcwd()  # it may be gone when a change is told
    logger.info("watching %s", ", ".join(sorted(map(str, directories))))
    async for changes in watchfiles.awatch(
        *directories, watch_filter=None, step=quiet, debounce=max(quiet, 1600), ignore_permission_denied=True
    ):
        changed = sorted({path for _, path in changes if counts(Path(path))})
        if changed:
            await _until_nobody_debugs(_names(changed, here))
            await reload(f"{_names(changed, here)} changed")


async def _until_nobody_debugs(names: str) -> None:
    """Wait while a debugger has the terminal: what it looks at would be gone."""
    if not terminal.is_read():
        return
    logger.info("%s changed: the reload waits, since a debugger has the terminal", names)
    while terminal.is_read():  # noqa: ASYNC110 - no event tells of it, and only a save waits
        await asyncio.sleep(PAUSE)


def _names(paths: list[str], here: str) -> str:
    names = [path.removeprefix(f"{here}/") for path in paths]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004 - a line
