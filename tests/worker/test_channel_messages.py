"""What a worker and its supervisor say to each other after the hand-off, and where a worker's output goes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from stillup.errors import PeerError
from stillup.host import descriptors
from stillup.host.adoption_queue import AdoptionQueue
from stillup.host.channel import Channel
from stillup.wire import handoff_messages
from stillup.wire.handoff_messages import Accept, BootFailed, Drain, Hello, Ready, Serving, Welcome
from stillup.worker.supervisor_channel import SupervisorChannel

pytestmark = pytest.mark.usefixtures("no_leak")

WELCOME = Welcome(handoff_messages.PROTOCOL, 1, 1, "app:app", "/", "/", {}, drain_timeout=1.0, boot_timeout=1.0)


@pytest.fixture
def ends(no_leak: None) -> Iterator[tuple[SupervisorChannel, socket.socket]]:
    """A ours with one listener, and the supervisor's end of its channel."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(here, limit=handoff_messages.MESSAGE_LIMIT, most=handoff_messages.BATCH_LIMIT)
    listener = socket.create_server(("127.0.0.1", 0))
    ours = SupervisorChannel(
        "/nowhere", "the nonce", channel, WELCOME, -1, -1, [("web", listener)], AdoptionQueue.make()
    )
    with there:
        there.settimeout(10)
        yield ours, there
        ours.close()
        assert set(ours.descriptors()) == {-1}


async def test_say(ends: tuple[SupervisorChannel, socket.socket]) -> None:
    """What the worker says arrives, one message a packet, whether it waits or not."""
    ours, there = ends
    await ours.say(Ready("/healthz 200"))
    ours.say_now(BootFailed("import", "no such module"))
    await ours.say(Serving())
    heard = [handoff_messages.decode_from_worker(there.recv(handoff_messages.MESSAGE_LIMIT)) for _ in range(3)]
    assert heard == [Ready("/healthz 200"), BootFailed("import", "no such module"), Serving()]


async def test_say_to_nobody(ends: tuple[SupervisorChannel, socket.socket]) -> None:
    """To a supervisor that is gone, what may not wait is simply not said; what may says so."""
    ours, there = ends
    there.close()
    ours.say_now(BootFailed("import", "no such module"))
    with pytest.raises(OSError, match="Broken pipe"):
        await ours.say(Serving())


async def test_hear(ends: tuple[SupervisorChannel, socket.socket]) -> None:
    """The supervisor's words arrive in order; its end is None, once and again."""
    ours, there = ends
    there.send(handoff_messages.encode(Accept()))
    there.send(handoff_messages.encode(Drain(3.0, final=True)))
    there.close()
    assert [await ours.hear() for _ in range(4)] == [Accept(), Drain(3.0, final=True), None, None]


async def test_hear_a_reset(ends: tuple[SupervisorChannel, socket.socket]) -> None:
    """A supervisor that died with our words unread is gone as well: None."""
    ours, there = ends
    await ours.say(Serving())
    there.close()
    assert await ours.hear() is None


@pytest.mark.parametrize("packet", [b"nonsense", b"\xff", handoff_messages.encode(Hello(1, "a worker's word"))])
async def test_hear_nonsense(ends: tuple[SupervisorChannel, socket.socket], packet: bytes) -> None:
    """What is no word of a supervisor's is a PeerError."""
    ours, there = ends
    there.send(packet)
    with pytest.raises(PeerError, match="not a message of the hand-off protocol"):
        await ours.hear()


async def test_descriptors_out_of_turn(ends: tuple[SupervisorChannel, socket.socket]) -> None:
    """Descriptors that come after the hand-off are closed; the word that they came with counts."""
    ours, there = ends
    descriptors.send(there, handoff_messages.encode(Accept()), [0, 1])
    assert await ours.hear() == Accept()


def test_what_no_child_may_hold(ends: tuple[SupervisorChannel, socket.socket]) -> None:
    """A ours knows each descriptor that it holds: the channel, the listeners, and both ends of the queue."""
    ours, _ = ends
    ((_, listener),) = ours.listeners
    queue = ours.queue
    expected = [ours.channel.fileno(), listener.fileno(), queue.reader.fileno(), queue.writer.fileno()]
    assert ours.descriptors() == [expected[0], -1, -1, *expected[1:]], "no memory to count in, and no lock"
    assert all(os.get_inheritable(fd) is False for fd in expected)


def test_restore_output(ends: tuple[SupervisorChannel, socket.socket]) -> None:
    """From restore_output on what is written to 1 and 2 goes to the supervisor's own stdout and stderr."""
    ours, _ = ends
    kept = os.dup(1), os.dup(2)
    out, ours.stdout = os.pipe()
    err, ours.stderr = os.pipe()
    try:
        ours.restore_output()
        os.write(1, b"out")
        os.write(2, b"err")
    finally:
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        descriptors.close(kept)
    # Their only other copies are closed by now: what was read is followed by the end.
    assert (os.read(out, 64), os.read(out, 64)) == (b"out", b"")
    assert (os.read(err, 64), os.read(err, 64)) == (b"err", b"")
    descriptors.close([out, err])
