"""Listeners that a reload brings and leaves out: bound before it is asked for, closed when nobody wants them any more.

1. A listener is bound, and listens, before its rollout is asked for: with SO_REUSEADDR it is listen(2), not bind(2),
   that finds a port taken, and a reload is to be refused before anything has started. Who connects meanwhile waits.
2. What is in custody already, perhaps since a reload before left it out, is used again.
3. What the fleet says is held, and what a request asks for that is not decided on yet.
4. A listener ends in this order: its file, its entry with the service manager, our copy, the workers'. So the last copy
   is a worker's, who has just taken all that waited: with ours as the last one, who connects after that look is reset.
5. One change at a time, in the order in which they were asked for; the disk is used in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final

from stillup.core.commands import KeepListeners
from stillup.core.listener_key import ListenerKey
from stillup.daemon.settings.bind_changes import listener_key
from stillup.daemon.state.custody import Custody
from stillup.daemon.state.disk import in_thread
from stillup.daemon.state.thread_wait import are_done
from stillup.errors import Refused, Unavailable, UsageError
from stillup.host.blocking_close import close_at_once
from stillup.host.sockets import Listener, open_listener
from stillup.wire.address import AbstractAddress, Bind, UnixAddress

logger = logging.getLogger("stillup")

LONGEST_BIND: Final = 6.0
"""Seconds that new listeners are waited for; another's lock on a path may take five (``socket_files``)."""
LONGEST_REMOVAL: Final = 2.0
"""Seconds that the removal of a file is waited for; it goes on without us."""


class ListenerChanges:
    """Changes what is in custody while the service runs."""

    def __init__(
        self,
        custody: Custody,
        backlog: int,
        *,
        wanted: Callable[[], Collection[ListenerKey]],
        changed: Callable[[], Awaitable[None]],
        announce: Callable[[str, Mapping[str, Any]], None],
        tell: Callable[[int, list[int]], object],
    ) -> None:
        """Change what is in ``custody``.

        Args:
            custody: has the listeners.
            backlog: of listen(2).
            wanted: what the fleet holds now.
            changed: is called when others are held: they are put on record, and kept by the service manager.
            announce: tells of an event.
            tell: has a worker, by its serial, keep the listeners of those cookies alone.
        """
        self._custody = custody
        self._backlog = backlog
        self._wanted = wanted
        self._changed = changed
        self._announce = announce
        self._tell = tell
        self._turn = asyncio.Lock()
        """Held by the one change that is under way."""
        self._asked: Counter[ListenerKey] = Counter()
        """What requests ask for that are not decided on yet."""
        self._told = set(custody.keys)
        """Those of which it is known that there is a listener."""
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def bound(self, binds: Sequence[Bind]) -> AsyncIterator[None]:
        """Have a listener for each, for the rollout that is asked for in here; if there is none, not.

        Raises:
            Refused: ``configuration``: one cannot be had; nothing is held that was not before.
        """
        keys = [listener_key(bind) for bind in binds]
        self._asked.update(keys)
        try:
            async with self._turn:
                added = await self._add([bind for bind in binds if self._is_new(bind)])
            yield
        finally:  # who asks may have been refused, or called off
            self._asked -= Counter(keys)  # by which nothing stays of what is asked for no more
            self._begin(self._let_go())
        for key, address in added:
            self._told.add(key)
            self._announce("listener.added", {"name": key.name, "address": address})

    def _is_new(self, bind: Bind) -> bool:
        """Whether a bind is to be made.

        Raises:
            Refused: what is held is in its way.
        """
        key = listener_key(bind)
        held = next((one for one in self._custody.listed() if one.key == key), None)
        if held is not None and held.bind not in (None, bind):
            raise _held_still(bind, "it was asked for with another mode, owner or group before, and that")
        if held is None and isinstance(bind.address, UnixAddress | AbstractAddress):
            for one in self._custody.listed():
                if one.key.name == bind.name and one.key.bind.startswith("unix:"):
                    raise _held_still(bind, f"another socket of the name '{bind.name}', {one.key.bind},")
        return held is None

    async def _add(self, binds: Sequence[Bind]) -> list[tuple[ListenerKey, str]]:
        """Bind these, all or none; the address that each got.

        Raises:
            Refused: one cannot be had.
        """
        if not binds:
            return []
        making = asyncio.ensure_future(in_thread(_open_all, binds, self._backlog))
        try:
            made = await asyncio.wait_for(asyncio.shield(making), LONGEST_BIND)
        except (Unavailable, UsageError) as error:
            raise Refused(str(error), code="configuration") from error
        except (TimeoutError, asyncio.CancelledError) as error:
            self._begin(_close_when_made(making))
            if isinstance(error, asyncio.CancelledError):
                raise
            where = ", ".join(str(bind.address) for bind in binds)
            message = f"cannot bind {where} within {LONGEST_BIND:g} s: a directory does not answer"
            raise Refused(message, code="unavailable") from error
        for bind, listener in zip(binds, made, strict=True):
            self._custody.add(bind, listener)
        await self._changed()
        return [(listener_key(bind), listener.info.address) for bind, listener in zip(binds, made, strict=True)]

    def keep(self, command: KeepListeners) -> None:
        """Hold what the fleet wants and nothing else, here and in these workers. Does not wait."""
        self._begin(self._let_go(command.workers))

    async def _let_go(self, workers: Sequence[int] = ()) -> None:
        async with self._turn:
            wanted = frozenset(self._wanted())
            unwanted = [one for one in self._custody.listed() if one.key not in wanted and one.key not in self._asked]
            for one in unwanted:
                await _remove_file(one.key, one.listener)
            gone = [(one.key, one.listener.info.address, self._custody.remove(one.key)) for one in unwanted]
            try:
                if gone:
                    await self._changed()  # at once: what is held and what is on record never differ
            finally:
                for _, _, listener in gone:
                    close_at_once(listener.socket)
            for key, address, _ in gone:
                if key in self._told:
                    self._told.discard(key)
                    self._announce("listener.closed", {"name": key.name, "address": address})
            for serial in workers if self._custody.listed() else ():
                self._tell(serial, self._custody.numbers())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _held_still(bind: Bind, what: str) -> Refused:
    message = f"cannot bind {bind.address} yet: {what} is held until no older generation could want it back"
    return Refused(f"{message}; reload again when 'stillup status' does not show it", code="configuration")


async def _remove_file(key: ListenerKey, listener: Listener) -> None:
    """Let nobody else connect to a socket file, if it is ours."""
    if listener.file is None:
        return
    try:
        removing = asyncio.ensure_future(in_thread(listener.file.remove))
        if not await are_done({removing}, LONGEST_REMOVAL):
            raise TimeoutError("its directory does not answer")
        removing.result()
    except (Refused, OSError) as error:
        logger.warning("listener '%s': its file stays: %s", key.name, error)


async def _close_when_made(making: asyncio.Future[list[Listener]]) -> None:
    with contextlib.suppress(Refused, OSError):
        await in_thread(_close_all, await making)


def _close_all(listeners: Sequence[Listener]) -> None:
    """Close listeners that nobody has a copy of. Blocks."""
    for listener in listeners:
        with contextlib.suppress(OSError):
            listener.close()


def _open_all(binds: Sequence[Bind], backlog: int) -> list[Listener]:
    """Make all of these, or none. Blocks.

    Raises:
        Refused: one cannot be had.
    """
    made: list[Listener] = []
    try:
        for bind in binds:
            made.append(open_listener(bind, backlog))  # noqa: PERF401 - what could be had is in it when one cannot
    except BaseException:
        _close_all(made)
        raise
    return made
