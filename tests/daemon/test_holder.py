"""Custody that comes back: which socket is whose, what becomes of socket files, and what is closed."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from supervisor.core.model import Fleet
from supervisor.daemon.holder import Holder
from supervisor.errors import Refused
from supervisor.host import descriptors
from supervisor.host.adoption import AdoptionQueue, cookie
from supervisor.host.sockets import Listener
from supervisor.wire.address import Bind, parse_bind
from supervisor.wire.record import Record
from tests.host.test_adoption import scarcity

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture
def stack(no_leak: None) -> Iterator[ExitStack]:
    """Closes what a test has opened."""
    with ExitStack() as stack:
        yield stack


def binds(*texts: str) -> list[Bind]:
    return [parse_bind(text) for text in texts]


class Before:
    """What a supervisor had opened, of which a worker holds copies, and its record."""

    def __init__(self, stack: ExitStack, *texts: str) -> None:
        first = Holder(binds(*texts))
        first.open(binds(*texts), 16)
        self.record = Record(1, "boot", "ab" * 32, 1, Fleet(), tuple(first.records()), first.cookies)
        self.names = [info.name for info in first.infos]
        self.addresses = [info.address for info in first.infos]
        self.fds = [descriptors.duplicate(fd) for batch in first.batches() for fd in batch]
        stack.callback(descriptors.close, self.fds)
        self.cookies = first.cookies
        first.close()

    def give(self, holder: Holder, only: Sequence[int] | None = None, *, queue: bool = True) -> None:
        """Let a worker give copies of its listeners, or of some, and of the queue."""
        copies = [descriptors.duplicate(fd) for fd in self.fds]
        ends = copies[-2:]
        listeners = []
        for place, name in enumerate(self.names):
            if only is None or place in only:
                listeners.append(Listener(name, socket.socket(fileno=copies[place])))
            else:
                descriptors.close([copies[place]])
        if not queue:
            descriptors.close(ends)
        holder.take_back(listeners, AdoptionQueue.receive(ends, self.cookies) if queue else None)


def held(holder: Holder) -> list[int]:
    return [entry.cookie for entry in holder.records()]


def successor(stack: ExitStack, *texts: str) -> Holder:
    holder = Holder(binds(*texts))
    stack.callback(holder.close)
    return holder


def test_everything_comes_back(tmp_path: Path, stack: ExitStack) -> None:
    """A supervisor that is started as the last one was has the very same sockets, and knows it."""
    texts = ("127.0.0.1:0", f"u=unix:{tmp_path}/s", f"unix:@{tmp_path}")
    before = Before(stack, *texts)
    holder = successor(stack, *texts)
    before.give(holder, only=[0, 2], queue=False)
    assert not holder.has_all_of(before.record)
    before.give(holder, only=[1, 2])
    assert holder.has_all_of(before.record)
    before.give(holder)  # another worker, with the same
    assert holder.open(binds(*texts), 16, before.record)
    before.give(holder)  # one that comes later
    assert holder.records() == list(before.record.listeners)
    assert [info.address for info in holder.infos] == before.addresses
    assert holder.cookies == before.cookies


def test_without_a_record(tmp_path: Path, stack: ExitStack) -> None:
    """What came back is known by its address, where no record says what it was asked for as."""
    texts = ("127.0.0.1:0", f"u=unix:{tmp_path}/s", f"unix:@{tmp_path}")
    before = Before(stack, *texts)
    holder = successor(stack, *texts)
    before.give(holder)
    assert holder.open(binds(*texts), 16)
    assert holder.records() == list(before.record.listeners), "the file is known as ours, too"


def test_nothing_comes_back(stack: ExitStack) -> None:
    """What nobody has given back is made."""
    before = Before(stack, "127.0.0.1:0")
    holder = successor(stack, "127.0.0.1:0")
    assert not holder.open(binds("127.0.0.1:0"), 16, before.record)
    assert held(holder) != [before.record.listeners[0].cookie]


def test_other_names(tmp_path: Path, stack: ExitStack) -> None:
    """A socket is kept under another name, one of its own name first; it is not what the workers know, though."""
    before = Before(stack, "a=127.0.0.1:0", "b=127.0.0.1:0", f"c=unix:{tmp_path}/s")
    holder = successor(stack, "b=127.0.0.1:0", "a=127.0.0.1:0", f"d=unix:{tmp_path}/s")
    before.give(holder)
    assert not holder.open(binds("b=127.0.0.1:0", "a=127.0.0.1:0", f"d=unix:{tmp_path}/s"), 16, before.record)
    a, b, c = (entry.cookie for entry in before.record.listeners)
    assert held(holder) == [b, a, c]
    assert [info.name for info in holder.infos] == ["b", "a", "d"]


def test_what_is_not_wanted_any_more(tmp_path: Path, stack: ExitStack) -> None:
    """A listener that no bind asks for is let go, and its socket file goes; one that is not ours stays."""
    before = Before(stack, f"unix:{tmp_path}/s", f"unix:{tmp_path}/t", "127.0.0.1:0")
    Path(tmp_path, "t").unlink()
    Path(tmp_path, "t").touch()
    holder = successor(stack, "127.0.0.1:0")
    before.give(holder)
    assert not holder.open(binds("127.0.0.1:0"), 16, before.record)
    assert (Path(tmp_path, "s").exists(), Path(tmp_path, "t").exists()) == (False, True)


def test_one_that_cannot_be_had(tmp_path: Path, stack: ExitStack) -> None:
    """If a new one cannot be had nothing is held, new files go, and the files of those that came back stay."""
    texts = (f"unix:{tmp_path}/s", f"unix:{tmp_path}/new")
    before = Before(stack, texts[0])
    taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    wanted = binds(*texts, f"127.0.0.1:{taken.getsockname()[1]}")
    holder = successor(stack)
    before.give(holder)
    with pytest.raises(Refused, match="address already in use"):
        holder.open(wanted, 16, before.record)
    assert (Path(tmp_path, "s").exists(), Path(tmp_path, "new").exists()) == (True, False)


@pytest.mark.parametrize("end", ["end", "close"])
def test_the_end(tmp_path: Path, stack: ExitStack, end: str) -> None:
    """A stop removes the socket file of a listener that came back; a supervisor that leaves its workers does not."""
    before = Before(stack, f"unix:{tmp_path}/s")
    holder = successor(stack, f"unix:{tmp_path}/s")
    before.give(holder)
    assert holder.open(binds(f"unix:{tmp_path}/s"), 16, before.record)
    getattr(holder, end)()
    assert Path(tmp_path, "s").exists() == (end == "close")


# What was inherited


def test_the_same_was_inherited(stack: ExitStack) -> None:
    """The socket that came back is the one at fd:N: one copy is enough, and the other is closed."""
    server = socket.create_server(("127.0.0.1", 0))
    fd = descriptors.duplicate(server.fileno())
    before = Before(stack, f"web=fd:{server.detach()}")
    before.record = Record(1, "boot", "ab" * 32, 1, Fleet(), before.record.listeners, before.record.queue)
    holder = successor(stack, f"web=fd:{fd}")
    before.give(holder)
    assert holder.open(binds(f"web=fd:{fd}"), 16, before.record), "whatever its number was"
    with pytest.raises(OSError, match="Bad file descriptor"):
        descriptors.duplicate(fd)


def test_another_was_inherited(stack: ExitStack) -> None:
    """If another socket is at fd:N now, that is the one that is wanted, and what came back is not."""
    server, other = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    fd = server.detach()
    before = Before(stack, f"web=fd:{fd}")
    number = cookie(other)
    descriptors.put_in_place(other.detach(), fd)
    holder = successor(stack, f"web=fd:{fd}")
    before.give(holder)
    assert not holder.open(binds(f"web=fd:{fd}"), 16, before.record)
    assert held(holder) == [number]


def test_nothing_was_inherited(stack: ExitStack) -> None:
    """Started by hand the next time, without the socket: what came back is what fd:N was, whatever is there now."""
    fd = socket.create_server(("127.0.0.1", 0)).detach()
    before = Before(stack, f"web=fd:{fd}")
    holder = successor(stack, f"web=fd:{fd}")
    before.give(holder)
    assert holder.open(binds(f"web=fd:{fd}"), 16, before.record)
    assert held(holder) == [before.record.listeners[0].cookie]


def test_our_own_socket_is_not_what_was_inherited(stack: ExitStack) -> None:
    """A number at which nothing was inherited may come to be that of a socket of our own: that is never served on."""
    free = descriptors.duplicate(0)
    descriptors.close([free])
    holder = successor(stack, f"fd:{free}")
    own = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    assert own.fileno() == free
    with pytest.raises(Refused, match=f"cannot use fd:{free}: start stillup with a listening socket there"):
        holder.open(binds(f"fd:{free}"), 16)


def test_two_queues(stack: ExitStack) -> None:
    """A queue of another supervisor's workers is read by ours, too: its reading end is handed out behind our queue."""
    one, other = Before(stack, "127.0.0.1:0"), Before(stack, "127.0.0.1:0")
    holder = successor(stack, "127.0.0.1:0")
    one.give(holder)
    for _ in range(2):  # of two workers, and one copy is enough
        other.give(holder, only=[])
    assert holder.open(binds("127.0.0.1:0"), 16, one.record)
    assert (holder.cookies, holder.older) == (one.cookies, [other.cookies[0]])
    assert [len(next(holder.batches(older=older))) for older in (True, False)] == [4, 3]


def test_custody_without_descriptors() -> None:
    """Where too few descriptors are free to take custody, or to hand it on, nothing stays open of the attempt."""
    scarcity("custody")
