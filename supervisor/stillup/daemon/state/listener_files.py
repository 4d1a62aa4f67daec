"""The files of our Unix listeners: whether clients still come to them, and a new socket where one is gone.

A socket whose file was removed listens on, and nobody can connect to it; it cannot be given another file (unix(7)).

1. A reload binds a new socket at the path before its workers boot, which they are handed in the place of the old one.
2. At the cut-over the old one is closed here. If the rollout is aborted before, nobody would accept on the new one: it
   is closed with its file, and the old one is handed out again. So it is if the request is refused or called off.
3. The disk is used in a thread, which is not waited for for long: a path may lead anywhere.
4. One request at a time has files put back, until it is decided on: another would rely on what a refusal takes away.
5. Who owns a directory decides what is in it, and not whether there is a rollout: where a file cannot be put back, that
   is logged, and the rollout goes on without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from stillup.core.states import SUPERSEDED
from stillup.daemon.state.custody import Custody
from stillup.daemon.state.disk import in_thread
from stillup.daemon.state.thread_wait import are_done
from stillup.errors import Refused
from stillup.host.blocking_close import close_at_once
from stillup.host.socket_files import UnixFile
from stillup.host.sockets import Listener, open_listener
from stillup.wire.address import Bind, UnixAddress

logger = logging.getLogger("stillup")

PATIENCE: Final = 0.5
"""Seconds that a look may take; nothing is said of a file that could not be looked at by then."""
LONGEST_BIND: Final = 6.0
"""Seconds that a new socket is waited for; another's lock on its path may take five (``socket_files``)."""


class ListenerFiles:
    """Looks after them. Owns the sockets that were replaced, until the cut-over."""

    def __init__(self, custody: Custody, backlog: int, changed: Callable[[], Awaitable[None]]) -> None:
        """Look after those in ``custody``; ``changed`` is called when others are held there."""
        self._custody = custody
        self._backlog = backlog
        self._changed = changed
        self._look: asyncio.Task[dict[str, str]] | None = None
        self._replaced: dict[str, Listener] = {}
        """By name, the sockets that are handed out again if the rollout is aborted."""
        self._request = asyncio.Lock()
        """Is held by the request that has files put back."""
        self._binding: dict[str, asyncio.Task[Listener | None]] = {}
        """By name, the new sockets that a thread is making; one that nobody waits for any more is closed."""
        self._closing: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def lost(self) -> Mapping[str, str]:
        """By name, what has become of the file of each listener to which nobody can connect any more."""
        look = self._look
        if look is None or look.done():
            files = self._custody.files()
            if not files:
                return {}
            look = self._look = asyncio.get_running_loop().create_task(in_thread(_lost, files))
        if not await are_done({look}, PATIENCE):
            return {}
        with contextlib.suppress(Refused):
            return look.result()  # of the look that was waited for: another may have begun meanwhile
        return {}

    @contextlib.asynccontextmanager
    async def put_back(self) -> AsyncIterator[None]:
        """Have each that is gone there again, for the rollout that is asked for in here; if there is none, not.

        One that cannot be put back is logged, and stays as it is.
        """
        async with self._request:
            if self._closing:  # what is being removed would be in the way
                await are_done(self._closing, PATIENCE)
            made: list[str] = []
            try:
                for name, what in (await self.lost()).items():
                    listener = await self._bind_anew(name, what)
                    if listener is not None:
                        self._exchange(name, listener)
                        made.append(name)
                if made:
                    await self._changed()
                yield
            except BaseException:  # who asks may have been called off, too
                self._take_away(made)
                raise

    async def _bind_anew(self, name: str, what: str) -> Listener | None:
        """A new socket in the place of a listener whose file is lost; None if it is not, or cannot be had."""
        if name in self._binding:  # of a request before, which has not waited for it
            return None
        file = self._custody.files().get(name)
        bind = next((one for one in self._custody.binds if one.name == name and _is_path(one)), None)
        if file is None or bind is None:  # what is only held still is asked for by nobody
            return None
        made = asyncio.ensure_future(in_thread(_open_if_lost, name, file, bind, self._backlog))
        self._binding[name] = made
        listener: Listener | None = None
        taken = False
        try:
            listener = await asyncio.wait_for(asyncio.shield(made), LONGEST_BIND)
            taken = True
        except (Refused, OSError) as trouble:  # TimeoutError is one
            taken = made.done() and made.exception() is not None
            why = trouble if taken else f"its directory does not answer within {LONGEST_BIND:g} s"
            logger.warning(
                "listener '%s': %s, and it cannot be put back: %s; nobody can connect there, and the rollout goes on",
                name,
                what,
                why,
            )
        finally:
            if taken:
                del self._binding[name]
            else:
                self._begin(self._drop(name, made), self._tasks)
        return listener

    async def _drop(self, name: str, made: asyncio.Task[Listener | None]) -> None:
        """Close a new socket that nobody waits for any more, once it is there."""
        try:
            with contextlib.suppress(Refused, OSError):
                if (listener := await made) is not None:
                    self._close_later(listener)
        finally:
            del self._binding[name]

    def _exchange(self, name: str, listener: Listener) -> None:
        before = self._custody.exchange(name, listener)
        if name in self._replaced:
            close_at_once(before.socket)
        else:
            self._replaced[name] = before
        logger.warning("the file of listener '%s' was gone: %s is bound anew", name, listener.info.address)

    def hear(self, kind: str, data: Mapping[str, Any]) -> None:
        """Act on what a rollout comes to."""
        if kind == "rollout.cut-over":
            while self._replaced:
                close_at_once(self._replaced.popitem()[1].socket)
        elif kind == "rollout.aborted" and data["reason"] != SUPERSEDED:
            self._take_away([*self._replaced])

    def _take_away(self, names: Sequence[str]) -> None:
        """Hand the sockets out again that were replaced."""
        for name in names:
            if (before := self._replaced.pop(name, None)) is not None:
                self._close_later(self._custody.exchange(name, before))
        if names:
            self._begin(self._note(), self._tasks)

    async def _note(self) -> None:
        await self._changed()

    def _close_later(self, listener: Listener) -> None:
        self._begin(_close(listener), self._closing)

    @staticmethod
    def _begin(work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def close(self) -> None:
        """Close what was replaced."""
        while self._replaced:
            close_at_once(self._replaced.popitem()[1].socket)


async def _close(listener: Listener) -> None:
    """Close a socket that no worker has, with its file."""
    try:
        await in_thread(listener.close)
    except (Refused, OSError) as error:
        close_at_once(listener.socket)
        logger.warning("listener '%s': its new file stays: %s", listener.name, error)


def _is_path(bind: Bind) -> bool:
    return isinstance(bind.address, UnixAddress)


def _open_if_lost(name: str, file: UnixFile, bind: Bind, backlog: int) -> Listener | None:
    """Make a listener anew; None if its file is there, though a look before this one missed it. Blocks.

    Raises:
        Refused: it cannot be had.
    """
    return open_listener(bind, backlog) if _lost({name: file}) else None


def _lost(files: Mapping[str, UnixFile]) -> dict[str, str]:
    """What is there instead of each file that is not there any more. Blocks."""
    lost: dict[str, str] = {}
    for name, file in files.items():
        try:
            status = os.lstat(file.path)
        except (FileNotFoundError, NotADirectoryError):
            lost[name] = "its file is gone"
            continue
        except OSError:  # it may well be there
            continue
        if (status.st_dev, status.st_ino) != (file.device, file.inode):
            what = "another socket" if stat.S_ISSOCK(status.st_mode) else "another file"
            lost[name] = f"its file is gone, and {what} is there"
    return lost
