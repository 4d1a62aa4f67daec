"""Hot reload: a change of source is a reload like any other."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import watchfiles

from supervisor.asgi.borrowed import watch_filter

logger = logging.getLogger("stillup")


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
            await reload(f"{_names(changed, here)} changed")


def _names(paths: list[str], here: str) -> str:
    names = [path.removeprefix(f"{here}/") for path in paths]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004 - a line
