"""What systemd passes, told apart: real sockets under the names that systemd gives them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from stillup.core.model import Fleet
from stillup.daemon.state import fd_store
from stillup.daemon.state.fd_store import LISTENER, READER, WRITER, FdStore
from stillup.errors import Unavailable, UsageError
from stillup.host.adoption_queue import AdoptionQueue, cookie
from stillup.wire.address import Bind, parse_bind
from stillup.wire.record_format import SCHEMA, ListenerRecord, Record
from tests.host.slow_sockets import slow_to_close

pytestmark = pytest.mark.usefixtures("no_leak")
WEB = parse_bind("systemd:web")


@pytest.fixture
def stack(no_leak: None) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listening() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


def sort(passed: list[tuple[str, int]], *binds: Bind) -> fd_store.Passed:
    return fd_store.sort(passed, binds)


def test_all_is_told_apart(stack: ExitStack) -> None:
    """Sockets of .socket units by their names, listeners and the queue from the store, named by their cookies."""
    listener, queue = listening(), AdoptionQueue.make()
    number = cookie(listener)
    passed = [
        (f"{WRITER}1", queue.writer.detach()),
        ("web", 1000),
        (f"{LISTENER}{number}", listener.detach()),
        (f"{READER}1", queue.reader.detach()),
    ]
    found = sort(passed, WEB)
    assert found.activated == {"web": 1000}
    assert found.names == {f"{WRITER}1", f"{LISTENER}{number}", f"{READER}1"}
    (one,) = found.named({number: "api"})
    assert (one.name, cookie(one.socket)) == ("api", number)
    (unknown,) = found.named({})
    assert unknown.name == ""
    one.socket.close()
    assert found.queue is not None
    found.queue.writer.send(b"x")
    assert found.queue.reader.recv(10) == b"x"
    found.queue.close()


def test_what_is_of_no_use_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    """Half a queue, a socket that does not listen, and what an earlier version may have had kept."""
    queue, plain, other = AdoptionQueue.make(), socket.socket(), socket.socket()
    queue.writer.close()
    found = sort(
        [(f"{READER}1", queue.reader.detach()), (f"{LISTENER}5", plain.detach()), ("stillup-other", other.detach())]
    )
    assert (found.listeners, found.queue) == ([], None)
    assert "'stillup-listener-5'" in caplog.text
    assert "'stillup-other'" in caplog.text


@pytest.mark.parametrize("name", [f"{READER}1", "stillup-other"])
def test_what_takes_long_to_close(name: str) -> None:
    """Whatever workers had put into what is of no use, a start does not wait for it."""
    with slow_to_close(inside=True) as slow:
        began = time.monotonic()
        sort([(name, slow.detach())])
        assert time.monotonic() - began < 15  # half of what the close takes


def test_ends_of_two_queues_are_no_queue(stack: ExitStack) -> None:
    """Where a crash has left some of an old queue beside ours, the ends that belong together are found."""
    queue, old = AdoptionQueue.make(), AdoptionQueue.make()
    stack.enter_context(old.writer)
    passed = [(f"{READER}7", queue.reader.detach()), (f"{WRITER}7", queue.writer.detach())]
    found = sort([*passed, (f"{READER}5", old.reader.detach())])
    assert found.queue is not None
    found.queue.writer.send(b"x")
    assert found.queue.reader.recv(10) == b"x"
    found.queue.close()
    one, other = AdoptionQueue.make(), AdoptionQueue.make()
    stack.enter_context(one.writer)
    stack.enter_context(other.reader)
    assert sort([(f"{READER}1", one.reader.detach()), (f"{WRITER}2", other.writer.detach())]).queue is None


def test_what_a_program_before_had_kept_is_known(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a re-exec what was in custody goes in again, since it may not be there, and what was dropped comes out."""
    listener = stack.enter_context(listening())
    queue = AdoptionQueue.make()
    stack.callback(queue.close)
    manager = Manager()
    monkeypatch.setenv("FDSTORE", "64")
    held = tuple(ListenerRecord("web", "127.0.0.1:0", number) for number in (cookie(listener), 4))
    record = Record(SCHEMA, "boot", "ab" * 32, 1, Fleet(), held, queue.cookies)
    store = FdStore(manager, frozenset(), fd_store.of_record(record))  # type: ignore[arg-type]
    store.keep([listener.fileno()], (queue.reader.fileno(), queue.writer.fileno()))
    assert [word.rpartition("-")[0] for word in manager.said[:3]] == [
        *("store stillup-listener", "store stillup-queue-reader", "store stillup-queue-writer")
    ]
    assert manager.said[3:] == ["forget stillup-listener-4"]


@pytest.mark.parametrize(
    ("passed", "binds", "says"),
    [
        ([("api", 9)], [WEB], r"systemd:web: .* no socket of that name \(it passed: 'api'\)"),
        ([], [WEB], r"it passed: none"),
        ([("web", 9), ("admin", 10)], [WEB], "named 'admin' that nothing listens on: add --bind systemd:admin"),
        ([("web", 9), ("web", 10)], [WEB], "two sockets named 'web'"),
    ],
)
def test_what_does_not_match(passed: list[tuple[str, int]], binds: list[Bind], says: str) -> None:
    """What the configuration does not know, or misses, is named with the way out."""
    with pytest.raises(UsageError, match=says):
        sort(passed, *binds)


class Manager:
    """The one seam: what is said to it is kept here."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def store(self, name: str, fd: int) -> None:
        self.said.append(f"store {name} {fd}")

    def forget(self, name: str) -> None:
        self.said.append(f"forget {name}")


def test_the_store_is_kept_in_step(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is new goes in, what is not held any more comes out, what is in it already is left alone."""
    old, new = stack.enter_context(listening()), stack.enter_context(listening())
    queue = AdoptionQueue.make()
    stack.callback(queue.close)
    ends = (queue.reader.fileno(), queue.writer.fileno())
    manager = Manager()
    monkeypatch.setenv("FDSTORE", "64")
    store = FdStore(manager, frozenset({f"{LISTENER}{cookie(old)}", "stillup-gone"}))  # type: ignore[arg-type]
    store.keep([old.fileno(), new.fileno()], ends)
    assert manager.said == [
        f"store {LISTENER}{cookie(new)} {new.fileno()}",
        f"store {READER}{queue.cookies[0]} {ends[0]}",
        f"store {WRITER}{queue.cookies[0]} {ends[1]}",
        "forget stillup-gone",
    ]
    manager.said.clear()
    store.keep([new.fileno()], ends)
    assert manager.said == [f"forget {LISTENER}{cookie(old)}"]
    monkeypatch.setenv("FDSTORE", "2")
    with pytest.raises(Unavailable, match="FileDescriptorStoreMax=2 is too few for 3 descriptors"):
        store.keep([new.fileno()], ends)


def test_what_was_left_for_good_is_not_gone_back_to(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that is bound anew while a stop is announced is not given to systemd: newcomers would wait at it."""
    listener, queue, manager = stack.enter_context(listening()), AdoptionQueue.make(), Manager()
    stack.callback(queue.close)
    ends = (queue.reader.fileno(), queue.writer.fileno())
    monkeypatch.setenv("FDSTORE", "64")
    store = FdStore(manager, frozenset())  # type: ignore[arg-type]
    store.keep([listener.fileno()], ends)
    store.leave()
    assert [word.partition(" ")[0] for word in manager.said] == ["store"] * 3 + ["forget"] * 3
    manager.said.clear()
    store.keep([listener.fileno()], ends)
    assert manager.said == []


@pytest.mark.parametrize(
    ("socket_", "most", "there"),
    [("/run/x", "64", True), ("/run/x", "0", False), ("/run/x", "", False), ("", "64", False)],
)
def test_whether_there_is_a_store(socket_: str, most: str, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only with a manager that says how many it keeps."""
    monkeypatch.setenv("NOTIFY_SOCKET", socket_)
    monkeypatch.setenv("FDSTORE", most)
    assert fd_store.is_there() is there
