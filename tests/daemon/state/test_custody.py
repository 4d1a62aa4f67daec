"""Custody that comes back: which socket is whose, what becomes of socket files, and what is closed."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from stillup.core.listener_key import ListenerKey
from stillup.core.model import Fleet
from stillup.daemon.state.custody import MOST_OLDER, Custody
from stillup.daemon.state.returned_listeners import MOST_RETURNED
from stillup.errors import PeerError, Refused
from stillup.host import descriptors
from stillup.host.adoption_queue import AdoptionQueue, cookie
from stillup.host.sockets import Listener, is_behind_its_path
from stillup.wire.address import Bind, parse_bind
from stillup.wire.record_format import Record
from tests.host.conftest import open_descriptors
from tests.host.slow_sockets import slow_to_close
from tests.host.test_adoption_queue import scarcity

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
        first = Custody(binds(*texts))
        first.open(binds(*texts), 16)
        self.record = Record(1, "boot", "ab" * 32, 1, Fleet(), tuple(first.records()), first.cookies)
        self.names = [info.name for info in first.infos]
        self.addresses = [info.address for info in first.infos]
        self.fds = [descriptors.duplicate(fd) for batch in first.batches() for fd in batch]
        stack.callback(descriptors.close, self.fds)
        self.cookies = first.cookies
        first.close()

    def give(self, custody: Custody, only: Sequence[int] | None = None, *, queue: bool = True) -> None:
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
        custody.take_from_worker(listeners, AdoptionQueue.receive(ends, self.cookies) if queue else None)


def held(custody: Custody) -> list[int]:
    return [entry.cookie for entry in custody.records()]


def successor(stack: ExitStack, *texts: str, record: Record | None = None) -> Custody:
    custody = Custody(binds(*texts), record=record)
    stack.callback(custody.close)
    return custody


def test_everything_comes_back(tmp_path: Path, stack: ExitStack) -> None:
    """A supervisor that is started as the last one was has the very same sockets, and knows it."""
    texts = ("127.0.0.1:0", f"u=unix:{tmp_path}/s", f"unix:@{tmp_path}")
    before = Before(stack, *texts)
    custody = successor(stack, *texts)
    before.give(custody, only=[0, 2], queue=False)
    assert not custody.has_all_of(before.record)
    before.give(custody, only=[1, 2])
    assert custody.has_all_of(before.record)
    before.give(custody)  # another worker, with the same
    assert custody.open(binds(*texts), 16, before.record)
    before.give(custody)  # one that comes later
    assert custody.records() == list(before.record.listeners)
    assert [info.address for info in custody.infos] == before.addresses
    assert custody.cookies == before.cookies


def test_without_a_record(tmp_path: Path, stack: ExitStack) -> None:
    """What came back is known by its address, where no record says what it was asked for as."""
    texts = ("127.0.0.1:0", f"u=unix:{tmp_path}/s", f"unix:@{tmp_path}")
    before = Before(stack, *texts)
    custody = successor(stack, *texts)
    before.give(custody)
    assert custody.open(binds(*texts), 16)
    assert custody.records() == list(before.record.listeners), "the file is known as ours, too"


def test_nothing_comes_back(stack: ExitStack) -> None:
    """What nobody has given back is made."""
    before = Before(stack, "127.0.0.1:0")
    custody = successor(stack, "127.0.0.1:0")
    assert not custody.open(binds("127.0.0.1:0"), 16, before.record)
    assert held(custody) != [before.record.listeners[0].cookie]


def test_other_names(tmp_path: Path, stack: ExitStack) -> None:
    """A socket is kept under another name, one of its own name first; it is not what the workers know, though."""
    before = Before(stack, "a=127.0.0.1:0", "b=127.0.0.1:0", f"c=unix:{tmp_path}/s")
    custody = successor(stack, "b=127.0.0.1:0", "a=127.0.0.1:0", f"d=unix:{tmp_path}/s")
    before.give(custody)
    assert not custody.open(binds("b=127.0.0.1:0", "a=127.0.0.1:0", f"d=unix:{tmp_path}/s"), 16, before.record)
    a, b, c = (entry.cookie for entry in before.record.listeners)
    assert held(custody) == [b, a, c]
    assert [info.name for info in custody.infos] == ["b", "a", "d"]


def test_what_the_fleet_wants_still_is_kept(tmp_path: Path, stack: ExitStack) -> None:
    """Though no bind asks for it any more: behind those that do, with the file that is ours; the rest is closed."""
    path = tmp_path / "s"
    before = Before(stack, "web=127.0.0.1:0", f"old=unix:{path}", "gone=127.0.0.1:0")
    custody = successor(stack, "web=127.0.0.1:0", record=before.record)
    before.give(custody)
    wanted = {ListenerKey("old", f"unix:{path}"), ListenerKey("never", "127.0.0.1:1")}
    assert not custody.open(binds("web=127.0.0.1:0"), 16, before.record, wanted), "one that came back is let go of"
    assert custody.records() == list(before.record.listeners[:2])
    assert custody.came_back == set(custody.keys)
    assert [bind.name for bind in custody.binds] == ["web"]
    custody.end()
    assert not path.exists()


def test_a_part_is_handed_out(stack: ExitStack) -> None:
    """Those of some keys, in the order of all; with none named it is all of them."""
    custody = successor(stack, "a=127.0.0.1:0", "b=127.0.0.1:0")
    custody.open(binds("a=127.0.0.1:0", "b=127.0.0.1:0"), 16)
    first, second = custody.listed()
    assert custody.listed([second.key, first.key]) == [first, second]
    assert custody.listed([second.key]) == [second]
    (batch,) = custody.batches([second])
    assert len(batch) == 3
    assert custody.remove(first.key) is first.listener
    first.listener.socket.close()
    assert custody.listed() == [second]


def test_what_is_handed_out_does_not_block(tmp_path: Path, stack: ExitStack) -> None:
    """Whatever a worker has made of the listeners, and of the queue: it is set anew for each that is started."""
    texts = ("127.0.0.1:0", f"unix:{tmp_path}/s")
    custody = successor(stack, *texts)
    custody.open(binds(*texts), 16)
    for batch in custody.batches():
        for fd in batch:
            os.set_blocking(fd, True)  # for all that have it
    for batch in custody.batches():
        assert [os.get_blocking(fd) for fd in batch] == [False] * 4


def test_whose_file_cannot_be_put_back(tmp_path: Path, stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever owns the directory keeps no supervisor from going on: the old socket is kept, and its file is lost."""
    text = f"u=unix:{tmp_path}/s"
    before = Before(stack, text, "127.0.0.1:0")
    Path(tmp_path, "s").unlink()
    Path(tmp_path, "s").touch()
    custody = successor(stack, text, "127.0.0.1:0", record=before.record)
    before.give(custody)
    custody.open(binds(text, "127.0.0.1:0"), 16, before.record)
    assert custody.records() == list(before.record.listeners)
    assert "the file there is no socket; move it away; workers keep the socket that they have" in caplog.text
    custody.end()
    assert Path(tmp_path, "s").exists(), "it is another's"


def test_what_is_not_wanted_any_more(tmp_path: Path, stack: ExitStack) -> None:
    """A listener that no bind asks for is let go, and its socket file goes; one that is not ours stays."""
    before = Before(stack, f"unix:{tmp_path}/s", f"unix:{tmp_path}/t", "127.0.0.1:0")
    Path(tmp_path, "t").unlink()
    Path(tmp_path, "t").touch()
    custody = successor(stack, "127.0.0.1:0", record=before.record)
    before.give(custody)
    assert not custody.open(binds("127.0.0.1:0"), 16, before.record)
    assert (Path(tmp_path, "s").exists(), Path(tmp_path, "t").exists()) == (False, True)


def test_one_that_cannot_be_had(tmp_path: Path, stack: ExitStack) -> None:
    """If a new one cannot be had nothing is held, new files go, and the files of those that came back stay."""
    texts = (f"unix:{tmp_path}/s", f"unix:{tmp_path}/new")
    before = Before(stack, texts[0])
    taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    wanted = binds(*texts, f"127.0.0.1:{taken.getsockname()[1]}")
    custody = successor(stack, record=before.record)
    before.give(custody)
    with pytest.raises(Refused, match="address already in use"):
        custody.open(wanted, 16, before.record)
    assert (Path(tmp_path, "s").exists(), Path(tmp_path, "new").exists()) == (True, False)


@pytest.mark.parametrize("end", ["end", "close"])
def test_the_end(tmp_path: Path, stack: ExitStack, end: str) -> None:
    """A stop removes the socket file of a listener that came back; a supervisor that leaves its workers does not."""
    before = Before(stack, f"unix:{tmp_path}/s")
    custody = successor(stack, f"unix:{tmp_path}/s")
    before.give(custody)
    assert custody.open(binds(f"unix:{tmp_path}/s"), 16, before.record)
    getattr(custody, end)()
    assert Path(tmp_path, "s").exists() == (end == "close")


# What was inherited


def test_the_same_was_inherited(stack: ExitStack) -> None:
    """The socket that came back is the one at fd:N: one copy is enough, and the other is closed."""
    server = socket.create_server(("127.0.0.1", 0))
    fd = descriptors.duplicate(server.fileno())
    before = Before(stack, f"web=fd:{server.detach()}")
    before.record = Record(1, "boot", "ab" * 32, 1, Fleet(), before.record.listeners, before.record.queue)
    custody = successor(stack, f"web=fd:{fd}")
    before.give(custody)
    assert custody.open(binds(f"web=fd:{fd}"), 16, before.record), "whatever its number was"
    with pytest.raises(OSError, match="Bad file descriptor"):
        descriptors.duplicate(fd)


def test_another_was_inherited(stack: ExitStack) -> None:
    """If another socket is at fd:N now, that is the one that is wanted, and what came back is not."""
    server, other = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    fd = server.detach()
    before = Before(stack, f"web=fd:{fd}")
    number = cookie(other)
    descriptors.put_in_place(other.detach(), fd)
    custody = successor(stack, f"web=fd:{fd}")
    before.give(custody)
    assert not custody.open(binds(f"web=fd:{fd}"), 16, before.record)
    assert held(custody) == [number]


def test_nothing_was_inherited(stack: ExitStack) -> None:
    """Started by hand the next time, without the socket: what came back is what fd:N was, whatever is there now."""
    fd = socket.create_server(("127.0.0.1", 0)).detach()
    before = Before(stack, f"web=fd:{fd}")
    custody = successor(stack, f"web=fd:{fd}")
    before.give(custody)
    assert custody.open(binds(f"web=fd:{fd}"), 16, before.record)
    assert held(custody) == [before.record.listeners[0].cookie]


def test_our_own_socket_is_not_what_was_inherited(stack: ExitStack) -> None:
    """A number at which nothing was inherited may come to be that of a socket of our own: that is never served on."""
    free = descriptors.duplicate(0)
    descriptors.close([free])
    custody = successor(stack, f"fd:{free}")
    own = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    assert own.fileno() == free
    with pytest.raises(Refused, match=f"cannot use fd:{free}: start stillup with a listening socket there"):
        custody.open(binds(f"fd:{free}"), 16)


def test_two_queues(stack: ExitStack) -> None:
    """A queue of another supervisor's workers is read by ours, too: its reading end is handed out behind our queue."""
    one, other = Before(stack, "127.0.0.1:0"), Before(stack, "127.0.0.1:0")
    custody = successor(stack, "127.0.0.1:0")
    one.give(custody)
    for _ in range(2):  # of two workers, and one copy is enough
        other.give(custody, only=[])
    assert custody.open(binds("127.0.0.1:0"), 16, one.record)
    assert (custody.cookies, custody.older) == (one.cookies, [other.cookies[0]])
    assert len(next(custody.batches())) == 4


def test_custody_without_descriptors() -> None:
    """Where too few descriptors are free to take custody, or to hand it on, nothing stays open of the attempt."""
    scarcity("custody")


def inserted(stack: ExitStack, before: Before) -> socket.socket:
    """A listener of the same address in another network namespace: of another process, which has ended by now."""
    host, port = before.addresses[0].split(":")
    code = (
        "import socket, sys\n"
        "sock = socket.socket()\n"
        "sock.setsockopt(socket.IPPROTO_IP, 15, 1)\n"  # IP_FREEBIND: the loopback is down there
        "sock.bind((sys.argv[1], int(sys.argv[2])))\n"
        "sock.listen()\n"
        "socket.send_fds(socket.socket(fileno=int(sys.argv[3])), [bytes(1)], [sock.fileno()])\n"
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = ["unshare", "-rn", sys.executable, "-c", code, host, port, str(theirs.fileno())]
        done = subprocess.run(argv, pass_fds=[theirs.fileno()], capture_output=True, timeout=30, check=False)
        if done.returncode:
            pytest.skip(f"no network namespace to be had: {done.stderr.decode()}")
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    return stack.enter_context(socket.socket(fileno=fds[0]))


def test_a_listener_that_is_not_on_record(stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    """One of the same address, by a worker that is known, is never taken while there is a record."""
    before = Before(stack, "web=127.0.0.1:0")
    other = inserted(stack, before)
    custody = successor(stack, "web=127.0.0.1:0", record=before.record)
    custody.take_from_worker([Listener("web", other.dup())], None)
    assert "'web' that a worker brought is not on record" in caplog.text
    before.give(custody)
    assert custody.has_all_of(before.record)
    assert custody.open(binds("web=127.0.0.1:0"), 16, before.record)
    assert held(custody) == [before.record.listeners[0].cookie]


def test_a_listener_of_another_network(stack: ExitStack) -> None:
    """Without a record who holds one is refused; what a worker of ours holds is taken all the same."""
    before = Before(stack, "web=127.0.0.1:0")
    other = inserted(stack, before)
    custody = successor(stack, "web=127.0.0.1:0")
    with pytest.raises(PeerError, match="its listener 'web' is in another network namespace than we are"):
        custody.take_from_worker([Listener("web", other.dup())], AdoptionQueue.make())
    before.give(custody)
    assert custody.open(binds("web=127.0.0.1:0"), 16)
    assert held(custody) == [before.record.listeners[0].cookie]


def test_a_socket_that_its_path_does_not_lead_to(stack: ExitStack, tmp_path: Path) -> None:
    """Without a record one that was bound to our path elsewhere, or before, is not taken for the one that is there."""
    path = str(tmp_path / "web")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        os.rename(path, f"{path}.other")
        before = Before(stack, f"web=unix:{path}")
        custody = successor(stack, f"web=unix:{path}")
        if not is_behind_its_path(other):  # else the kernel tells only who has CAP_NET_ADMIN
            custody.take_from_worker([Listener("web", other.dup())], None)
        before.give(custody)
        assert custody.open(binds(f"web=unix:{path}"), 16)
        assert held(custody) == [before.record.listeners[0].cookie]


def test_what_takes_long_to_close_in_the_queue(stack: ExitStack) -> None:
    """A worker may have left a connection there that lingers: the end of the service does not wait for it."""
    custody = Custody()
    custody.open(binds("127.0.0.1:0"), 16)
    descriptors.close(next(custody.batches()))
    assert custody._queue is not None
    with slow_to_close(inside=False) as slow:
        descriptors.send(custody._queue.writer, b"x", [slow.fileno()])
        slow.close()
        began = time.monotonic()
        custody.end()
        assert time.monotonic() - began < 15  # half of what the close takes


def test_those_that_nobody_asked_for(stack: ExitStack) -> None:
    """Without a record nobody knows how many there were: whoever brings others, again and again, fills nothing."""
    before = Before(stack, "web=127.0.0.1:0")
    port = before.addresses[0].rpartition(":")[2]
    custody = successor(stack, f"web=127.0.0.1:{port}")
    gc.collect()  # of what tests before this one have left in cycles nothing is to be closed meanwhile
    open_now = len(open_descriptors())
    for _ in range(3):
        others = [Listener("web", socket.create_server(("127.0.0.1", 0))) for _ in range(MOST_RETURNED // 4)]
        custody.take_from_worker(others, None)
    assert len(open_descriptors()) <= open_now
    before.give(custody)
    assert custody.open(binds(f"web=127.0.0.1:{port}"), 16)


def test_one_that_we_were_started_with_may_be_of_another(stack: ExitStack) -> None:
    """A service manager may give a listener of its own network to a service that has another."""
    before = Before(stack, "web=127.0.0.1:0")
    other = inserted(stack, before)
    custody = Custody(binds(f"web=fd:{other.fileno()}"))
    stack.callback(custody.close)
    custody.take_from_worker([Listener("web", other.dup())], None)
    number = cookie(other)
    custody.open(binds(f"web=fd:{other.detach()}"), 16)
    assert held(custody) == [number]


def test_a_queue_that_is_not_on_record(stack: ExitStack) -> None:
    """It never becomes the service's; what is in it is read, up to some of them, and no more is kept open."""
    before = Before(stack, "web=127.0.0.1:0")
    custody = successor(stack, "web=127.0.0.1:0", record=before.record)
    for _ in range(3 * MOST_OLDER):
        custody.take_from_worker([], AdoptionQueue.make())
    assert len(custody.older) == MOST_OLDER
    before.give(custody)
    assert custody.open(binds("web=127.0.0.1:0"), 16, before.record)
    assert custody.cookies == before.cookies
