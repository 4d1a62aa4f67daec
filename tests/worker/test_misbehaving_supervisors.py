"""Supervisors that break off, or break the protocol, in the middle of the hand-off: each way by its name."""

from __future__ import annotations

import os
import socket

import pytest

from stillup.errors import PeerError
from stillup.host import descriptors
from stillup.host.adoption_queue import AdoptionQueue, cookie
from stillup.host.sockets import describe
from stillup.wire import handoff_messages
from stillup.wire.handoff_messages import (
    Accept,
    Batch,
    BootFailed,
    Hello,
    Offer,
    Refusal,
)
from stillup.worker.supervisor_channel import take_over
from tests.worker.fake_supervisor import NONCE, Script, Supervisor, supervised

pytestmark = pytest.mark.usefixtures("no_leak")


def refuse(supervisor: Supervisor) -> None:
    supervisor.hear()
    supervisor.say(Refusal("no worker with that nonce is expected"))


def refuse_late(supervisor: Supervisor) -> None:
    supervisor.welcome()
    supervisor.hear()
    supervisor.say(Refusal("too late"))


def hang_up_on_hello(supervisor: Supervisor) -> None:
    supervisor.hear()


def hang_up_on_welcome(supervisor: Supervisor) -> None:
    supervisor.welcome()
    supervisor.hear()


def hang_up_on_offer(supervisor: Supervisor) -> None:
    supervisor.offer()


def hang_up_between_batches(supervisor: Supervisor) -> None:
    supervisor.offer()
    supervisor.batch(supervisor.listeners[0])
    supervisor.hear()


def speak_another_protocol(supervisor: Supervisor) -> None:
    supervisor.welcome(protocol=99)


def give_one_output(supervisor: Supervisor) -> None:
    supervisor.welcome(outputs=1)


def give_four_outputs(supervisor: Supervisor) -> None:
    supervisor.welcome(outputs=4)


def skip_the_welcome(supervisor: Supervisor) -> None:
    supervisor.hear()
    supervisor.say(Offer([], (1, 2)), 0, 1)


def talk_nonsense(supervisor: Supervisor) -> None:
    supervisor.hear()
    descriptors.send(supervisor.sock, b"nonsense", [0, 1])


def talk_too_long(supervisor: Supervisor) -> None:
    supervisor.hear()
    descriptors.send(supervisor.sock, b"x" * (handoff_messages.MESSAGE_LIMIT + 1), [0, 1])


def give_too_many_descriptors(supervisor: Supervisor) -> None:
    supervisor.hear()
    descriptors.send(supervisor.sock, b"{}", [0] * (handoff_messages.BATCH_LIMIT + 2))


EARLY: list[tuple[Script, str]] = [
    (refuse, "turned away by the supervisor: no worker with that nonce is expected"),
    (hang_up_on_hello, "the supervisor hung up"),
    (speak_another_protocol, f"the supervisor speaks protocol 99, this worker {handoff_messages.PROTOCOL}"),
    (give_one_output, "got 1 descriptor"),
    (give_four_outputs, "got 4 descriptors"),
    (skip_the_welcome, "expected Welcome of the supervisor, got Offer"),
    (talk_nonsense, "not a message of the hand-off protocol"),
    (talk_too_long, "the packet was cut short"),
    (give_too_many_descriptors, "the descriptors were cut short"),
]


@pytest.mark.parametrize(("script", "message"), EARLY, ids=[script.__name__ for script, _ in EARLY])
def test_misbehaviour_before_the_listeners(path: str, script: Script, message: str) -> None:
    """A supervisor that breaks off or breaks the protocol at its welcome is a PeerError; the worker says no more."""

    def whole(supervisor: Supervisor) -> None:
        script(supervisor)
        if not script.__name__.startswith("hang_up"):
            assert supervisor.hear() is None

    with supervised(path, whole) as supervisor, pytest.raises(PeerError, match=message):
        take_over(path, NONCE)
    assert supervisor.heard == [Hello(handoff_messages.PROTOCOL, NONCE)]


def announce_more_than_come(supervisor: Supervisor) -> None:
    supervisor.offer()
    supervisor.batch(*supervisor.all, count=5)


def announce_fewer_than_come(supervisor: Supervisor) -> None:
    supervisor.offer()
    supervisor.batch(*supervisor.all, count=3)


def announce_none(supervisor: Supervisor) -> None:
    supervisor.offer()
    supervisor.batch()


def give_more_than_offered(supervisor: Supervisor) -> None:
    supervisor.offer(supervisor.infos[:1])
    supervisor.batch(*supervisor.all)


def give_the_wrong_order(supervisor: Supervisor) -> None:
    supervisor.offer()
    supervisor.batch(*reversed(supervisor.listeners))


def give_a_wrong_last(supervisor: Supervisor) -> None:
    supervisor.offer()
    supervisor.batch(supervisor.listeners[0], supervisor.listeners[0])


def give_one_that_does_not_listen(supervisor: Supervisor) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        supervisor.offer([describe("bound", bound), *supervisor.infos])
        supervisor.batch(bound, *supervisor.listeners)


def give_no_socket(supervisor: Supervisor) -> None:
    supervisor.offer()
    with open(os.devnull, "rb") as null:
        supervisor.say(Batch(2), null.fileno(), supervisor.listeners[1].fileno())


def give_the_ends_the_other_way_round(supervisor: Supervisor) -> None:
    supervisor.offer()
    supervisor.batch(*supervisor.listeners, supervisor.queue.writer, supervisor.queue.reader)


def give_one_end_twice(supervisor: Supervisor) -> None:
    supervisor.offer()
    supervisor.batch(*supervisor.listeners, supervisor.queue.reader, supervisor.queue.reader)


def give_another_queue(supervisor: Supervisor) -> None:
    supervisor.offer()
    supervisor.batch(*supervisor.listeners)
    supervisor.hear()
    other = AdoptionQueue.make()
    supervisor.batch(other.reader, other.writer)
    other.close()


def give_a_stream_for_the_queue(supervisor: Supervisor) -> None:
    reader, writer = socket.socketpair()
    with reader, writer:
        supervisor.welcome()
        supervisor.hear()
        supervisor.say(Offer(supervisor.infos, (cookie(reader), cookie(writer))))
        supervisor.hear()
        supervisor.batch(*supervisor.listeners, reader, writer)


def give_no_socket_for_the_queue(supervisor: Supervisor) -> None:
    supervisor.offer()
    with open(os.devnull, "rb") as null:
        fds = [sock.fileno() for sock in supervisor.listeners]
        supervisor.say(Batch(4), *fds, null.fileno(), supervisor.queue.writer.fileno())


def give_no_socket_for_the_writer(supervisor: Supervisor) -> None:
    supervisor.offer()
    with open(os.devnull, "rb") as null:
        fds = [sock.fileno() for sock in supervisor.all[:3]]
        supervisor.say(Batch(4), *fds, null.fileno())


def say_accept_too_soon(supervisor: Supervisor) -> None:
    supervisor.offer()
    supervisor.say(Accept(), 0)


LATE: list[tuple[Script, str]] = [
    (refuse_late, "turned away by the supervisor: too late"),
    (announce_more_than_come, "5 descriptors were announced, 4 came"),
    (announce_fewer_than_come, "3 descriptors were announced, 4 came"),
    (announce_none, "0 descriptors were announced, 0 came"),
    (give_more_than_offered, "4 descriptors were announced, 4 came"),
    (give_the_wrong_order, "listener 'name-0': what came is not the listening socket 127.0.0.1"),
    (give_a_wrong_last, "listener 'name-1': what came is not the listening socket unix:@"),
    (give_one_that_does_not_listen, "listener 'bound': what came is not the listening socket"),
    (give_no_socket, "listener 'name-0': what came is no socket"),
    (give_the_ends_the_other_way_round, "adoption queue: what came is not the end of it that it was said to be"),
    (give_one_end_twice, "adoption queue: what came is not the end of it that it was said to be"),
    (give_another_queue, "adoption queue: what came is not the end of it that it was said to be"),
    (give_a_stream_for_the_queue, "adoption queue: what came is not the end of it that it was said to be"),
    (give_no_socket_for_the_queue, "adoption queue: what came is no socket"),
    (give_no_socket_for_the_writer, "adoption queue: what came is no socket"),
    (say_accept_too_soon, "expected Batch of the supervisor, got Accept"),
]


@pytest.mark.parametrize(("script", "message"), LATE, ids=[script.__name__ for script, _ in LATE])
def test_misbehaviour_at_the_listeners(path: str, script: Script, message: str) -> None:
    """A supervisor that hands over something else than it should is a PeerError, and is told why before the end."""

    def whole(supervisor: Supervisor) -> None:
        script(supervisor)
        assert isinstance(supervisor.hear(), BootFailed)
        assert supervisor.hear() is None

    with supervised(path, whole) as supervisor, pytest.raises(PeerError, match=message) as caught:
        take_over(path, NONCE)
    assert supervisor.heard[-1] == BootFailed("listeners", str(caught.value))


@pytest.mark.parametrize("script", [hang_up_on_welcome, hang_up_on_offer, hang_up_between_batches])
def test_hang_up_at_the_listeners(path: str, script: Script) -> None:
    """A supervisor that hangs up when the worker waits for listeners is a PeerError."""
    with supervised(path, script), pytest.raises(PeerError, match="the supervisor hung up"):
        take_over(path, NONCE)
