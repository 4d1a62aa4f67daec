"""What systemd started us with: sockets of .socket units, and what it kept of an earlier supervisor.

1. The store (``FileDescriptorStoreMax=``) is a second custody, which outlives this process: listeners and adoption
   queue come back from it after a restart, and after the supervisor was killed, be there workers or not.
2. Each entry is named after its socket's cookie, the queue's ends after the reader's: so one can be taken out again
   without touching another, and two ends are of one queue. What a crash has left of another is of no use.
3. Where there is a store, the queue outlives a stop, and idle connections are put there (``Policy.parks``).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from stillup.core.amounts import amount
from stillup.core.values import replace
from stillup.errors import Unavailable, UsageError
from stillup.host import descriptors
from stillup.host.adoption_queue import AdoptionQueue, cookie
from stillup.host.blocking_close import close_socket_in_thread
from stillup.host.service_manager import Notifier
from stillup.host.sockets import Listener, is_listening
from stillup.wire.address import ActivatedAddress, Bind
from stillup.wire.record_format import Record

logger = logging.getLogger("stillup")

PREFIX: Final = "stillup-"
LISTENER: Final = f"{PREFIX}listener-"
READER: Final = f"{PREFIX}queue-reader-"
WRITER: Final = f"{PREFIX}queue-writer-"


def is_there() -> bool:
    """Whether descriptors are kept for us; systemd says so from version 254 on, our units in its place before."""
    return bool(os.environ.get("NOTIFY_SOCKET")) and _most() > 0


def _most() -> int:
    text = os.environ.get("FDSTORE", "")
    return int(text) if text.isdecimal() else 0


class Passed(msgspec.Struct, frozen=True):
    """The descriptors that we were started with; they belong to who takes them."""

    activated: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Of .socket units, by name."""
    listeners: Sequence[Listener] = ()
    """From the store, without their names."""
    queue: AdoptionQueue | None = None
    names: frozenset[str] = frozenset()
    """Of all that is in the store."""

    def named(self, known: Mapping[int, str]) -> list[Listener]:
        """The listeners, with those names whose cookies are known."""
        return [replace(listener, name=known.get(cookie(listener.socket), "")) for listener in self.listeners]


def sort(passed: Iterable[tuple[str, int]], binds: Sequence[Bind]) -> Passed:
    """Tell the descriptors that the service manager passed apart.

    Raises:
        UsageError: a bind wants a socket that was not passed, or the other way round, or two have one name.
    """
    activated: dict[str, int] = {}
    listeners: list[Listener] = []
    readers: dict[str, socket.socket] = {}
    writers: dict[str, socket.socket] = {}
    found: set[str] = set()
    for name, fd in passed:
        if not name.startswith(PREFIX):
            if name in activated:
                message = (
                    f"systemd passed two sockets named '{name}': give each a .socket unit of its own, with another"
                )
                raise UsageError(f"{message} FileDescriptorName=")
            activated[name] = fd
            continue
        found.add(name)
        sock = socket.socket(fileno=fd)
        if name.startswith(LISTENER) and is_listening(sock):
            listeners.append(Listener("", sock))
        elif name.startswith(READER) and sock.type == socket.SOCK_SEQPACKET:
            readers[name.removeprefix(READER)] = sock
        elif name.startswith(WRITER) and sock.type == socket.SOCK_SEQPACKET:
            writers[name.removeprefix(WRITER)] = sock
        else:
            logger.warning("systemd kept '%s', which is nothing that we know: closed", name)
            close_socket_in_thread(sock)
    _check(activated, binds)
    queue = None
    if whole := sorted(readers.keys() & writers.keys()):
        queue = AdoptionQueue(readers.pop(whole[0]), writers.pop(whole[0]))
    for sock in (*readers.values(), *writers.values()):
        close_socket_in_thread(sock)
    return Passed(activated, listeners, queue, frozenset(found))


def of_record(record: Record) -> frozenset[str]:
    """What the store has of the custody that is on a record."""
    reader, _ = record.queue
    listeners = (f"{LISTENER}{listener.cookie}" for listener in record.listeners)
    return frozenset({*listeners, f"{READER}{reader}", f"{WRITER}{reader}"})


def _check(activated: Mapping[str, int], binds: Sequence[Bind]) -> None:
    wanted = {bind.address.name for bind in binds if isinstance(bind.address, ActivatedAddress)}
    has = ", ".join(f"'{name}'" for name in sorted(activated)) or "none"
    for name in sorted(wanted - activated.keys()):
        raise UsageError(
            f"--bind systemd:{name}: systemd passed no socket of that name (it passed: {has}); "
            f"a .socket unit with FileDescriptorName={name} and Service= for this service is what passes one"
        )
    for name in sorted(activated.keys() - wanted):
        raise UsageError(f"systemd passed a socket named '{name}' that nothing listens on: add --bind systemd:{name}")


class FdStore:
    """Keeps the store in step with the custody."""

    def __init__(self, notifier: Notifier, names: frozenset[str], tried: frozenset[str] = frozenset()) -> None:
        """Begin with ``names`` in the store, and perhaps what a program before this one has ``tried`` to put there."""
        self._notifier = notifier
        self._names = names
        self._tried = tried
        self._turn = threading.Lock()
        """Held by the one thread at a time that speaks with the manager."""
        self._left = False

    def keep(self, listeners: Sequence[int], queue: tuple[int, int]) -> None:
        """Have copies of these kept, and nothing else; once it was left, nothing is.

        Blocks while the manager does not read, some seconds at most.

        Raises:
            Unavailable: there is not room for all.
            OSError: the manager took nothing.
        """
        with self._turn:
            if not self._left:
                self._keep(listeners, queue)

    def _keep(self, listeners: Sequence[int], queue: tuple[int, int]) -> None:
        wanted = {f"{LISTENER}{_cookie(fd)}": fd for fd in listeners}
        number = _cookie(queue[0])
        wanted |= {f"{READER}{number}": queue[0], f"{WRITER}{number}": queue[1]}
        if len(wanted) > _most():
            raise Unavailable(f"FileDescriptorStoreMax={_most()} is too few for {amount(len(wanted), 'descriptor')}")
        for name, fd in wanted.items():
            if name not in self._names:
                self._notifier.store(name, fd)
        for name in sorted((self._names | self._tried) - wanted.keys()):
            self._notifier.forget(name)
        self._names, self._tried = frozenset(wanted), frozenset()

    def leave(self) -> None:
        """Have nothing of ours kept any more, for good; what cannot be said is logged. Blocks as ``keep``."""
        with self._turn:
            self._left = True
            try:
                for name in sorted(self._names | self._tried):
                    self._notifier.forget(name)
            except OSError as error:
                logger.error("systemd keeps our sockets, though we stop: %s", error)  # noqa: TRY400 - no bug
            self._names = self._tried = frozenset()


def _cookie(fd: int) -> int:
    sock = socket.socket(fileno=descriptors.duplicate(fd))
    with sock:
        return cookie(sock)
