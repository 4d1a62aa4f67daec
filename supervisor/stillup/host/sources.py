"""Where connections come from: a listener's backlog, or the adoption queue."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from stillup.errors import PeerError
from stillup.host import adoption_queue, descriptors, sealed_memory
from stillup.host.blocking_close import AT_ONCE, close_at_once, close_in_thread, close_socket_in_thread
from stillup.host.callers_socket import CallersSocket
from stillup.wire import session_format
from stillup.wire.adoption_packet import PACKET_LIMIT, ConnectionInfo, decode, plausible
from stillup.wire.session_format import Session

BATCH: Final = 8
"""Connections taken from a backlog at a time; the rest is for the other workers, or for the next turn."""
GONE: Final = frozenset(
    {errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH}
)
"""What accept(2) says of a connection that has failed already, to be passed over like EAGAIN."""


NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""The process has none left, or the machine has no file left (accept(2)); a client that connects waits."""


class Arrival(msgspec.Struct):
    """A connection, non-blocking, which belongs to who takes it. ``info``: it comes from another worker."""

    socket: socket.socket
    listener: str
    unix: bool
    info: ConnectionInfo | None = None
    session: Session | None = None
    """What it is, if that goes on here."""


class EndOfSource(Exception):
    """Nothing will ever come from here again."""


class Source(Protocol):
    """A descriptor that becomes readable when connections wait. Owns it."""

    def fileno(self) -> int: ...

    def take(self) -> Sequence[Arrival]:
        """Some of those that wait; none when there are none.

        Raises:
            EndOfSource: there never will be.
            OSError: none can be taken now, such as for want of a descriptor; they wait.
        """
        ...

    def close(self) -> None: ...


class Backlog:
    """New connections of one listener."""

    _class: type[socket.socket] = socket.socket

    def __init__(self, name: str, sock: socket.socket) -> None:
        self._name = name
        self._sock = sock
        self._kind = int(sock.family), int(sock.type), sock.proto
        self._unix = sock.family == socket.AF_UNIX

    def fileno(self) -> int:
        return self._sock.fileno()

    def take(self) -> Sequence[Arrival]:
        arrivals: list[Arrival] = []
        for _ in range(BATCH):
            try:
                # accept() is this and a good deal that would be the same for every connection.
                fd, _ = self._sock._accept()  # type: ignore[attr-defined]  # noqa: SLF001
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno in GONE:
                    continue
                if arrivals:
                    break  # these can be served; what is wrong will be as wrong the next time
                raise
            connection = self._class(*self._kind, fileno=fd)
            connection.setblocking(False)
            arrivals.append(Arrival(connection, self._name, self._unix))
        return arrivals

    def close(self) -> None:
        self._sock.close()


class SpareBacklog(Backlog):
    """New connections of a listener of our own, to be reached when no descriptor is free: it keeps some for that.

    Each is a file of its own, not a copy: the machine's limit (ENFILE) counts files.
    """

    _class = CallersSocket

    def __init__(self, name: str, sock: socket.socket, spare: int) -> None:
        """Keep as many as ``spare``: so many connections may be open at a time while there are no others."""
        super().__init__(name, sock)
        self._spare = adoption_queue.Reserve(spare, files=True)
        self._refill()

    def take(self) -> Sequence[Arrival]:
        self._refill()
        try:
            return super().take()
        except OSError as error:
            if error.errno not in NO_DESCRIPTOR or not self._spare.spend():
                raise
        return super().take()

    def _refill(self) -> None:
        """Hold as many as can be had."""
        with contextlib.suppress(OSError):
            self._spare.fill()

    def close(self) -> None:
        self._spare.free()
        close_at_once(self._sock)


class Adoptions:
    """Connections that other workers have put into the adoption queue, a packet at a time."""

    def __init__(self, reader: socket.socket, most: int) -> None:
        """Read from ``reader`` packets of at most ``most`` connections."""
        self._reader = reader
        self._most = most
        self._reserve = adoption_queue.Reserve(most)
        self.lost = 0
        """Connections that were dropped by the kernel on the way in, or could not be understood."""
        self._refill()

    @property
    def has_reserve(self) -> bool:
        """Whether it can receive; without a reserve it never does, and what is in the queue waits."""
        return self._reserve.is_full

    def fileno(self) -> int:
        return self._reader.fileno()

    def take(self) -> Sequence[Arrival]:
        self._reserve.fill()
        self._reserve.free()
        try:
            # Room for all that can come, though no more is served: what the kernel cuts off it closes in this thread.
            received = adoption_queue.receive(self._reader, PACKET_LIMIT, descriptors.MOST_SENT)
        except (BlockingIOError, InterruptedError):
            return ()
        finally:
            self._refill()
        if not received.packet and not received.fds and adoption_queue.has_ended(self._reader):
            raise EndOfSource
        return self._understand(received)

    def _refill(self) -> None:
        """Hold as much as can be had; whether that is enough is asked before the next packet."""
        with contextlib.suppress(OSError):
            self._reserve.fill()

    def _understand(self, received: adoption_queue.Received) -> Sequence[Arrival]:
        fds = received.fds
        try:
            infos = decode(received.packet)
        except PeerError:
            close_in_thread(fds)
            self.lost += len(fds)
            raise
        # The kernel keeps the order and drops from the end: the first descriptions are those of what came.
        arrivals = []
        left = iter(fds)
        now = time.monotonic()
        for said in infos[: self._most]:
            fd = next(left, None)
            if fd is None:
                break
            memory = next(left, None) if said.beside else None
            try:
                arrivals.append(_arrival(said, fd, memory, now))
            except PeerError:
                pass  # it is counted with those that did not come
            finally:
                close_in_thread([memory] if memory is not None else [])
        surplus = list(left)
        close_in_thread(surplus)
        self.lost += min(len(infos) - len(arrivals) + len(surplus), self._most)
        return arrivals

    def close(self) -> None:
        self._reserve.free()
        self._reader.close()


def _arrival(said: ConnectionInfo, fd: int, memory: int | None, now: float) -> Arrival:
    """What came by one description; ``memory`` stays the caller's.

    Raises:
        PeerError: it is no connection, or not what it was said to be. It is closed.
    """
    with contextlib.ExitStack() as undo:
        undo.callback(close_in_thread, [fd])
        info = plausible(said, now)
        if info is None:
            raise PeerError("its description can't be")
        session = None
        if info.is_session:
            packed = info.session
            if info.beside:
                if memory is None:
                    raise PeerError("a session: its memory did not come")
                packed = sealed_memory.read(memory, info.beside)
            session = session_format.decode(packed)
            info = msgspec.structs.replace(info, session=b"", beside=0)
        try:
            connection = socket.socket(fileno=fd)
        except OSError as error:
            raise PeerError("it is no socket") from error
        undo.pop_all()
        undo.callback(close_socket_in_thread, connection)
        if connection.type != socket.SOCK_STREAM:
            raise PeerError("it is no stream")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        connection.setblocking(False)
        undo.pop_all()
    return Arrival(connection, info.listener, connection.family == socket.AF_UNIX, info, session)
