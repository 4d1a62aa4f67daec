"""Clients that leave no time between two messages, each checking that none is lost, doubled or out of order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.system.sessions.websocket_peer import CLOSE, TEXT, Reply, WebSocketPeer

BATCH = 16
"""Messages that are written at a time."""
END = "end"
"""What is sent last."""
WINDOW = 256
"""Messages of a client that may be on their way: so many that the server always has some, and so few that they fit
into the kernel's buffers, since who reads may have to answer a ping while another thread writes."""


def message(number: int) -> str:
    """What is sent as the message of that number: of many sizes, and partly what was sent before."""
    return f"{number} " + f"lorem {number % 7} ipsum " * (number * 37 % 50)


@dataclass
class Flow:
    """One client at work, and what it has found."""

    peer: WebSocketPeer
    sent: int = 0
    received: int = 0
    generations: set[int] = field(default_factory=set)
    wrong: str = ""
    """The first thing that was not as it should be."""
    _stopped: threading.Event = field(default_factory=threading.Event)
    _room: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(WINDOW))
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for work in (self._write, self._read):
            thread = threading.Thread(target=self._noting, args=(work,))
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Send no more, and wait until all that is to come has come."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _noting(self, work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except Exception as error:  # noqa: BLE001 - whatever it is, the test has to tell of it
            self.wrong = self.wrong or f"{type(error).__name__}: {error}"
            self._stopped.set()
            self._room.release(BATCH)

    def _write(self) -> None:
        raise NotImplementedError

    def _read(self) -> None:
        raise NotImplementedError


class FastSender(Flow):
    """Sends as fast as the connection takes it, and reads what the echo says beside that."""

    def _write(self) -> None:
        while not self._stopped.is_set():
            for _ in range(BATCH):
                self._room.acquire()
            numbers = range(self.sent, self.sent + BATCH)
            self.sent += BATCH
            self.peer.send(b"".join(self.peer.text(message(number)) for number in numbers))
        self.peer.send(self.peer.text(END))

    def _read(self) -> None:
        while (reply := self.peer.reply()).text != END:
            if (reply.count, reply.text) != (self.received + 1, message(self.received)):
                raise AssertionError(f"after {self.received} came {reply}")
            self.received += 1
            self._room.release()
            self.generations.add(reply.generation)


class PushedTo(Flow):
    """Is sent numbers as fast as it takes them."""

    def _write(self) -> None:
        self._stopped.wait()
        self.peer.send(self.peer.text("enough"))

    def _read(self) -> None:
        while (got := self.peer.receive())[0] != CLOSE:
            reply = Reply.parse(got[1].decode())
            if (got[0], reply.count) != (TEXT, self.received):
                raise AssertionError(f"after {self.received} came {reply}")
            self.received += 1
            self.generations.add(reply.generation)
            if reply.text == "last":
                self.sent = self.received
        if self.sent != self.received:
            raise AssertionError(f"closed after {self.received}")


@contextmanager
def running(*flows: Flow) -> Iterator[None]:
    """All at work; at the end each is done, and nothing was wrong at any."""
    for flow in flows:
        flow.start()
    try:
        yield
    finally:
        for flow in flows:
            flow.stop()
    wrong = [flow.wrong for flow in flows if flow.wrong]
    assert not wrong, wrong
    assert all(flow.received == flow.sent > 0 for flow in flows), flows
