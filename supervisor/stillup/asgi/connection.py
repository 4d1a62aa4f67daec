"""A connection as the worker sees it, whatever parser reads it: what it does, how it moves, and how it ends.

``Connection`` is mixed into the classes of uvicorn's that serve connections (``uvicorn_adapter``), so that nothing
stands between a request and uvicorn's own methods. Its answers here are those of a connection that never moves; what a
parser or a WebSocket implementation knows better is in a file of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from stillup.core.crossing import ResumeRefusal, Standing
from stillup.core.drain import ConnectionClass
from stillup.wire.adoption_packet import ConnectionInfo
from stillup.wire.session_format import Session

if TYPE_CHECKING:
    from stillup.asgi.site import Site
    from stillup.host.sources import Arrival


class Connection(asyncio.Protocol):
    """One connection. No name here may be one that uvicorn's own classes have: ``tests/asgi`` sees to that."""

    site: Site
    arrival: Arrival
    transport: asyncio.Transport
    requests = 0
    """That came on this connection, here and at earlier workers, where that is counted."""
    made: float | None = None
    """When it came here, by the monotonic clock; None where that is not known."""

    def begin(self, site: Site, arrival: Arrival) -> None:
        """Be that one's; before all else."""
        self.site = site
        self.arrival = arrival

    def kind(self) -> ConnectionClass | None:
        """What it is doing, as the rules of a drain have it; None when it is not made yet, or closing already."""
        return None if self.is_ending() else ConnectionClass.OTHER

    def standing(self) -> Standing | None:
        """What it is doing, in its parser's words, if it may move some time; None of any other.

        None, too, of one that has not begun, ends, or was handed to another protocol.
        """
        return None

    def follow(self, look: Callable[[Connection], None]) -> None:
        """From now on call ``look`` with it after whatever may have changed what it is doing; here nothing tells."""

    def unfollow(self) -> None:
        """Have it hold nobody any more, itself neither: it has left."""

    def current_protocol(self) -> asyncio.BaseProtocol | None:
        """The protocol that it was handed to, as to one for WebSockets; else itself, or None without a transport."""
        transport = self.its_transport()
        return transport.get_protocol() if transport is not None else None

    def its_transport(self) -> asyncio.Transport | None:
        """Its transport; a protocol that we don't know may keep it elsewhere, and then this is None."""
        transport: asyncio.Transport | None = getattr(self, "transport", None)
        return transport

    def is_ending(self) -> bool:
        """Whether it is not made yet, or closing already."""
        transport = self.its_transport()
        return hasattr(self, "transport") and (transport is None or transport.is_closing())

    def task_owner(self) -> object:
        """What the task that runs the app for it belongs to (``request_tasks.owner``)."""
        return self

    def owes(self) -> bool:
        """Whether its client is in the middle of something, so that its close has to linger for what still comes."""
        return True

    def descriptor(self) -> int:
        """Its descriptor, which its transport owns; -1 where that is closed, or not known."""
        transport = self.its_transport()
        sock = transport.get_extra_info("socket") if transport is not None else None
        return sock.fileno() if sock is not None else -1

    def unsent(self) -> int:
        """Bytes that were written and have not left this process."""
        transport = self.its_transport()
        return transport.get_write_buffer_size() if transport is not None else 0

    def end(self) -> None:
        """Close it in the way of its class; what was written still arrives."""
        if (transport := self.its_transport()) is not None:
            transport.close()

    def abort(self) -> None:
        """Close it now."""
        if (transport := self.its_transport()) is not None:
            transport.abort()

    # What follows is for a connection that has a standing.

    def ask(self) -> None:
        """Have its app told that it may hand it over; of a session."""
        raise NotImplementedError

    def packed(self) -> Session | None:
        """The session that it is, if that goes on at another worker; None of all else."""
        return None

    def refuse(self, why: ResumeRefusal) -> None:
        """End a session that cannot go on anywhere: a WebSocket with close code 1012, an answer by its cut."""
        self.site.refuse(why)
        self.end()

    def describe(self, head: bytes, now: float) -> ConnectionInfo:
        """What the worker that adopts it has to know; ``head`` is what was read of its next request."""
        raise NotImplementedError

    def hold(self) -> bool:
        """Read nothing more from it: what its client sends waits in the kernel. Whether it was read from."""
        if not self.transport.is_reading():
            return False
        self.transport.pause_reading()
        return True

    def release(self) -> None:
        """Read from it again, unless it ends."""
        if not self.is_ending():
            self.transport.resume_reading()

    def hear_when_sent(self) -> None:
        """Have ``resume_writing`` called, and so what follows it, once all that was written has left."""
        self.transport.set_write_buffer_limits(high=0)

    def hear_as_usual(self) -> None:
        """Have it called no sooner than usual again."""
        if not self.is_ending():
            self.transport.set_write_buffer_limits()

    def let_go(self) -> None:
        """Close this process's copy, which somebody else has too, at once and without a word to its client.

        Nothing more is read here: what comes from now on is for the other copy.
        """
        transport = self.transport
        if transport.is_reading():
            transport.pause_reading()
        transport.abort()  # close(2) without shutdown(2); nothing that was written is left, so nothing is cut
