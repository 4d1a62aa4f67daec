"""What a worker and its supervisor say to each other after the hand-off, and where a worker's output goes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from supervisor.errors import PeerError
from supervisor.host import descriptors
from supervisor.host.adoption import AdoptionQueue
from supervisor.host.channel import Channel
from supervisor.wire import handoff
from supervisor.wire.handoff import Accept, BootFailed, Drain, Hello, Ready, Serving, Welcome
from supervisor.worker.session import Session

pytestmark = pytest.mark.usefixtures("no_leak")

WELCOME = Welcome(handoff.PROTOCOL, 1, 1, "app:app", "/", "/", {}, drain_timeout=1.0, boot_timeout=1.0)


@pytest.fixture
def ends(no_leak: None) -> Iterator[tuple[Session, socket.socket]]:
    """A session with one listener, and the supervisor's end of its channel."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(here, limit=handoff.MESSAGE_LIMIT, most=handoff.BATCH_LIMIT)
    listener = socket.create_server(("127.0.0.1", 0))
    session = Session("/nowhere", "the nonce", channel, WELCOME, -1, -1, [("web", listener)], AdoptionQueue.make())
    with there:
        there.settimeout(10)
        yield session, there
        session.close()
        assert set(session.descriptors()) == {-1}


async def test_say(ends: tuple[Session, socket.socket]) -> None:
    """What the worker says arrives, one message a packet, whether it waits or not."""
    session, there = ends
    await session.say(Ready("/healthz 200"))
    session.say_now(BootFailed("import", "no such module"))
    await session.say(Serving())
    heard = [handoff.decode_from_worker(there.recv(handoff.MESSAGE_LIMIT)) for _ in range(3)]
    assert heard == [Ready("/healthz 200"), BootFailed("import", "no such module"), Serving()]


async def test_say_to_nobody(ends: tuple[Session, socket.socket]) -> None:
    """To a supervisor that is gone, what may not wait is simply not said; what may says so."""
    session, there = ends
    there.close()
    session.say_now(BootFailed("import", "no such module"))
    with pytest.raises(OSError, match="Broken pipe"):
        await session.say(Serving())


async def test_hear(ends: tuple[Session, socket.socket]) -> None:
    """The supervisor's words arrive in order; its end is None, once and again."""
    session, there = ends
    there.send(handoff.encode(Accept()))
    there.send(handoff.encode(Drain(3.0, final=True)))
    there.close()
    assert [await session.hear() for _ in range(4)] == [Accept(), Drain(3.0, final=True), None, None]


async def test_hear_a_reset(ends: tuple[Session, socket.socket]) -> None:
    """A supervisor that died with our words unread is gone as well: None."""
    session, there = ends
    await session.say(Serving())
    there.close()
    assert await session.hear() is None


@pytest.mark.parametrize("packet", [b"nonsense", b"\xff", handoff.encode(Hello(1, "a worker's word"))])
async def test_hear_nonsense(ends: tuple[Session, socket.socket], packet: bytes) -> None:
    """What is no word of a supervisor's is a PeerError."""
    session, there = ends
    there.send(packet)
    with pytest.raises(PeerError, match="not a message of the hand-off protocol"):
        await session.hear()


async def test_descriptors_out_of_turn(ends: tuple[Session, socket.socket]) -> None:
    """Descriptors that come after the hand-off are closed; the word that they came with counts."""
    session, there = ends
    descriptors.send(there, handoff.encode(Accept()), [0, 1])
    assert await session.hear() == Accept()


def test_what_no_child_may_hold(ends: tuple[Session, socket.socket]) -> None:
    """A session knows each descriptor that it holds: the channel, the listeners, and both ends of the queue."""
    session, _ = ends
    ((_, listener),) = session.listeners
    queue = session.queue
    expected = [session.channel.fileno(), listener.fileno(), queue.reader.fileno(), queue.writer.fileno()]
    assert session.descriptors() == expected
    assert all(os.get_inheritable(fd) is False for fd in expected)


def test_restore_output(ends: tuple[Session, socket.socket]) -> None:
    """From restore_output on what is written to 1 and 2 goes to the supervisor's own stdout and stderr."""
    session, _ = ends
    kept = os.dup(1), os.dup(2)
    out, session.stdout = os.pipe()
    err, session.stderr = os.pipe()
    try:
        session.restore_output()
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
