"""A supervisor at the other end of a real hand-off socket, which does what a script says, well behaved or not."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stillup.host import descriptors
from stillup.host.adoption_queue import AdoptionQueue
from stillup.host.sockets import describe
from stillup.wire import handoff_messages
from stillup.wire.handoff_messages import (
    Batch,
    FromSupervisor,
    FromWorker,
    ListenerInfo,
    Offer,
    Welcome,
)

NONCE = "the nonce"


@dataclass
class Supervisor:
    """One end of the hand-off; it says what it is told to say, and keeps what it hears."""

    sock: socket.socket
    listeners: list[socket.socket]
    queue: AdoptionQueue
    heard: list[FromWorker] = field(default_factory=list)

    def hear(self) -> FromWorker | None:
        """The worker's next word, or None at its end."""
        packet, fds = descriptors.receive(self.sock, handoff_messages.MESSAGE_LIMIT, handoff_messages.BATCH_LIMIT)
        assert not fds
        if not packet:
            return None
        self.heard.append(handoff_messages.decode_from_worker(packet))
        return self.heard[-1]

    def say(self, message: FromSupervisor, *fds: int) -> None:
        descriptors.send(self.sock, handoff_messages.encode(message), fds)

    @property
    def all(self) -> list[socket.socket]:
        """What a worker gets, in its order."""
        return [*self.listeners, self.queue.reader, self.queue.writer]

    @property
    def infos(self) -> list[ListenerInfo]:
        return [describe(f"name-{number}", sock) for number, sock in enumerate(self.listeners)]

    def welcome(
        self, *, protocol: int = handoff_messages.PROTOCOL, outputs: int = 2, figures: Path | None = None
    ) -> None:
        """Up to the worker's word that it has its outputs."""
        self.hear()
        message = Welcome(
            protocol=protocol,
            worker=1,
            generation=3,
            app="app:app",
            directory="/srv",
            app_dir="/srv",
            options={},
            drain_timeout=30.0,
            boot_timeout=60.0,
        )
        with contextlib.ExitStack() as files:
            null = files.enter_context(open(os.devnull, "wb"))
            more = [] if figures is None else [files.enter_context(figures.open("r+b")).fileno()]
            self.say(message, *[null.fileno()] * outputs, *more)

    def offer(self, infos: list[ListenerInfo] | None = None, figures: Path | None = None) -> None:
        """Up to the worker's word that it knows what is to come."""
        self.welcome(figures=figures)
        self.hear()
        self.say(Offer(self.infos if infos is None else infos, self.queue.cookies))
        self.hear()

    def batch(self, *socks: socket.socket, count: int | None = None) -> None:
        self.say(Batch(len(socks) if count is None else count), *[sock.fileno() for sock in socks])


Script = Callable[[Supervisor], None]


@contextlib.contextmanager
def supervised(path: str, script: Script) -> Iterator[Supervisor]:
    """A supervisor that has two listeners and plays the script for whoever connects; its end is waited for."""
    failures: list[BaseException] = []
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(path)
        listener.listen()
        listener.settimeout(20)
        listeners = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))),
            stack.enter_context(socket.socket(socket.AF_UNIX)),
        ]
        listeners[1].bind("")
        listeners[1].listen()
        # Connected by the script's thread; there before it so that what it heard can be asked for.
        queue = AdoptionQueue.make()
        stack.callback(queue.close)
        supervisor = Supervisor(listener, listeners, queue)

        def play() -> None:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(20)
                    supervisor.sock = connection
                    script(supervisor)
            except BaseException as error:  # noqa: BLE001 - raised again where the test sees it
                failures.append(error)

        thread = threading.Thread(target=play)
        thread.start()
        try:
            yield supervisor
        finally:
            thread.join(30)
    assert not failures, failures
