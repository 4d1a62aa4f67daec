"""Answers ``/livez`` and ``/readyz`` while the supervisor's program is replaced: a process of its own, for a moment.

A new program imports for some hundred milliseconds before it answers, and a balancer that asks five times a second
takes that for a dead host. So before it begins this process is started, with copies of the control API's sockets:

1. It answers probes, by what the supervisor said last, to callers with the right to ask. Nothing is read but those.
2. Every other connection it gives to the new program when that asks for them, with all that its client has sent.
3. It ends then; or when nobody holds the other end of its pair any more; or after DEADLINE.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import sys
import time
from typing import Final

from stillup.core.access import Role, role_of
from stillup.errors import PeerError
from stillup.host import descriptors, peer
from stillup.host.blocking_close import close_at_once
from stillup.host.callers_socket import CallersSocket
from stillup.host.sources import GONE
from stillup.wire.interim_messages import (
    MOST_HEAD,
    PACKET_LIMIT,
    READY,
    RELEASE,
    InterimAnswers,
    InterimOrders,
    answer_to,
    decode_answers,
    decode_orders,
)

DEADLINE: Final = 30.0
"""Seconds of its life."""
MOST_HELD: Final = 64
"""Connections that are held for the new program; more wait in the backlog."""
MOST_WITHOUT_RIGHT: Final = 16
"""The same of callers without a right; more of them are hung up on."""
MOST_SOCKETS: Final = 3


class InterimServer:
    """Serves until the supervisor says that it is enough. Owns the pair and the sockets."""

    def __init__(self, pair: socket.socket, orders: InterimOrders, listeners: list[socket.socket]) -> None:
        self._pair = pair
        self._orders = orders
        self._listeners = {sock.fileno(): (name, sock) for name, sock in zip(orders.sockets, listeners, strict=True)}
        self._held: dict[int, tuple[str, socket.socket]] = {}
        """By descriptor, connections that were not answered, with the names of their sockets."""
        self._without_right = 0
        self._poll = select.poll()

    def run(self) -> None:
        """Answer from the supervisor's first word to its second."""
        self._pair.settimeout(DEADLINE)
        self._pair.send(READY)
        packet, _ = descriptors.receive(self._pair, PACKET_LIMIT, 0)
        if not packet:
            return  # nothing is replaced
        answers = decode_answers(packet)
        for fd in (self._pair.fileno(), *self._listeners):
            self._poll.register(fd, select.POLLIN)
        ends = time.monotonic() + DEADLINE
        while (left := ends - time.monotonic()) > 0:
            for fd, _ in self._poll.poll(left * 1000):
                if fd in self._listeners:
                    self._accept(fd)
                elif fd in self._held:
                    self._look(fd, answers)
                elif fd == self._pair.fileno():
                    # Left unread, the word would make an error of its sender's end, and hide what we send.
                    word = self._pair.recv(PACKET_LIMIT)
                    if not word.startswith(RELEASE):
                        self._hand_over()
                        return
                    self._release(word.removeprefix(RELEASE).decode())
                    self._pair.send(word)

    def _release(self, name: str) -> None:
        """Close a socket, so that its address may be bound anew; what came by it is kept."""
        for fd, (known, listener) in tuple(self._listeners.items()):
            if known == name:
                with contextlib.suppress(KeyError):
                    self._poll.unregister(fd)
                del self._listeners[fd]
                close_at_once(listener)

    def _accept(self, fd: int) -> None:
        name, listener = self._listeners[fd]
        try:
            connection: socket.socket = CallersSocket(fileno=listener.accept()[0].detach())
        except BlockingIOError:
            return  # the supervisor was faster
        except OSError as error:
            if error.errno not in GONE:
                self._poll.unregister(fd)  # for want of a descriptor for instance: the new program will see
            return
        connection.setblocking(False)
        if self._may_ask(name, connection):
            self._poll.register(connection, select.POLLIN)
        elif self._without_right < MOST_WITHOUT_RIGHT:
            self._without_right += 1
        else:
            connection.close()
            return
        self._held[connection.fileno()] = name, connection
        if len(self._held) >= MOST_HELD:
            for one in self._listeners:
                with contextlib.suppress(KeyError):
                    self._poll.unregister(one)

    def _may_ask(self, name: str, connection: socket.socket) -> bool:
        rules = self._orders.rules.get(name)
        if rules is None:
            return True
        held = peer.hold(connection)
        try:
            own_uid = self._orders.own_uid
            if not role_of(held.principal, rules, own_uid=own_uid).covers(Role.VIEWER):
                return False
            who = held.identify(self._orders.workers, self._orders.handoff, self._orders.suspects)
        finally:
            held.close()
        return not who.unseen and role_of(who, rules, own_uid=own_uid).covers(Role.VIEWER)

    def _look(self, fd: int, answers: InterimAnswers) -> None:
        """Answer, if it is a probe; its bytes are taken only then."""
        _, connection = self._held[fd]
        try:
            head = connection.recv(MOST_HEAD, socket.MSG_PEEK)
            answer = answer_to(head, answers)
            if answer is None:
                self._poll.unregister(fd)  # no probe, or one that comes in pieces
                return
            connection.recv(len(head))
            connection.send(answer)
        except OSError:
            pass  # its client has left
        self._poll.unregister(fd)
        del self._held[fd]
        connection.close()
        for one in self._listeners:  # there is room again
            self._poll.register(one, select.POLLIN)

    def _hand_over(self) -> None:
        """Give what is held to who has asked for it; to nobody, if the other end is closed."""
        with contextlib.suppress(OSError):
            for name, connection in self._held.values():
                descriptors.send(self._pair, name.encode(), [connection.fileno()])


def main(number: int) -> None:
    """Serve; ``number``: the descriptor of the pair's end."""
    # A look at a caller may hang, and nothing else here would end it then.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.alarm(int(2 * DEADLINE))
    pair = socket.socket(fileno=number)
    pair.settimeout(DEADLINE)
    try:
        packet, fds = descriptors.receive(pair, PACKET_LIMIT, MOST_SOCKETS)
        listeners = [socket.socket(fileno=fd) for fd in fds]
        for listener in listeners:
            listener.setblocking(False)
        InterimServer(pair, decode_orders(packet), listeners).run()
    except (OSError, PeerError, ValueError) as error:
        sys.exit(f"stillup: nobody answers probes while the program is replaced: {error}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
