"""A reload when what the app reads at its start has changed: a ConfigMap, a Secret, a file of a deployment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from stillup.daemon.state.disk import in_thread
from stillup.errors import Refused
from stillup.host.path_stamp import Stamp, stamp

logger = logging.getLogger("stillup")

LOOK: Final = 1.0
"""Seconds between two looks. Not inotify(7), which tells of one directory, not of where its links lead, and of nothing
that another host changes on a network's file system."""


async def watch_paths(paths: Sequence[str], reload: Callable[[str], Awaitable[None]]) -> None:
    """Call ``reload`` with what changed, once it has stopped changing. Runs until it is cancelled.

    Args:
        paths: files, and directories whose files they are; what is not there yet is waited for.
        reload: asks for a reload; must not raise.
    """
    logger.info("reloads when %s changes", ", ".join(paths))
    loaded = seen = await in_thread(_stamps, paths)
    while True:
        await asyncio.sleep(LOOK)
        try:
            before, seen = seen, await in_thread(_stamps, paths)
        except Refused as refusal:  # there is no thread to be had now
            logger.warning("whether %s changed cannot be seen: %s", ", ".join(paths), refusal)
            continue
        # Who replaces a file may remove it first, and who copies several takes some time.
        changed = [path for path in paths if seen[path] and seen[path] == before[path] != loaded[path]]
        if changed:
            loaded = {**loaded, **{path: seen[path] for path in changed}}
            await reload(f"{', '.join(changed)} changed")


def _stamps(paths: Sequence[str]) -> dict[str, Stamp]:
    return {path: stamp(path) for path in paths}
