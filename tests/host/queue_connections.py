"""Connections to put into an adoption queue, and what comes out of it."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from stillup.host import adoption_queue
from stillup.host.adoption_queue import AdoptionQueue
from stillup.host.sources import Arrival
from stillup.wire.adoption_packet import ConnectionInfo, encode


@contextmanager
def established(count: int) -> Iterator[tuple[list[socket.socket], list[socket.socket]]]:
    """TCP connections: their clients, and the server's sides, as a worker has them."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=count))
        clients, servers = [], []
        for _ in range(count):
            clients.append(stack.enter_context(socket.create_connection(listener.getsockname(), timeout=10)))
            servers.append(stack.enter_context(listener.accept()[0]))
            servers[-1].setblocking(False)
        yield clients, servers


@contextmanager
def a_queue() -> Iterator[AdoptionQueue]:
    """An adoption queue."""
    queue = AdoptionQueue.make()
    try:
        yield queue
    finally:
        queue.close()


def infos(count: int, listener: str = "web") -> list[ConnectionInfo]:
    """Descriptions that can be told apart."""
    return [ConnectionInfo(listener, 1.0, number) for number in range(count)]


def give(queue: AdoptionQueue, servers: Iterable[socket.socket], described: list[ConnectionInfo] | None = None) -> None:
    """Put connections into the queue, in one packet, and close the own copies."""
    servers = list(servers)
    packet = encode(infos(len(servers)) if described is None else described)
    adoption_queue.send(queue.writer, packet, [sock.fileno() for sock in servers])
    for sock in servers:
        sock.close()


def talk(client: socket.socket, server: socket.socket) -> None:
    """See that these are the two ends of one connection."""
    client.settimeout(10)
    server.settimeout(10)
    client.sendall(b"question")
    assert server.recv(64) == b"question"
    server.sendall(b"answer")
    assert client.recv(64) == b"answer"


def use(clients: Iterable[socket.socket], arrivals: Iterable[Arrival]) -> None:
    """See that the arrivals are the servers' sides of these clients, in their order, and close them."""
    for client, arrival in zip(clients, arrivals, strict=True):
        with arrival.socket:
            talk(client, arrival.socket)
