"""Descriptors in flight between two ends of a real socket."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stillup.errors import PeerError
from stillup.host import descriptors

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pair(no_leak: None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a SOCK_SEQPACKET connection."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        there.setblocking(False)
        yield here, there


def test_what_is_sent_is_received(pair: tuple[socket.socket, socket.socket]) -> None:
    """A packet arrives with its descriptors in their order, each a new one of the same open file, and close-on-exec."""
    here, there = pair
    with Path(__file__).open() as file, Path("/dev/null").open() as null:
        descriptors.send(here, b"two", [file.fileno(), null.fileno()])
        packet, fds = descriptors.receive(there, 64, 4)
        assert packet == b"two"
        assert os.path.samestat(os.fstat(fds[0]), os.fstat(file.fileno()))
        assert os.path.samestat(os.fstat(fds[1]), os.fstat(null.fileno()))
        assert not {file.fileno(), null.fileno()} & set(fds)
        assert [os.get_inheritable(fd) for fd in fds] == [False, False]
        descriptors.close(fds)


def test_packets_stay_apart(pair: tuple[socket.socket, socket.socket]) -> None:
    """One receive gives one packet, with its own descriptors and no others."""
    here, there = pair
    descriptors.send(here, b"first")
    descriptors.send(here, b"second", [0])
    descriptors.send(here, b"third")
    assert descriptors.receive(there, 64, 4) == (b"first", [])
    packet, fds = descriptors.receive(there, 64, 4)
    assert (packet, len(fds)) == (b"second", 1)
    descriptors.close(fds)
    assert descriptors.receive(there, 64, 4) == (b"third", [])


def test_nothing_yet(pair: tuple[socket.socket, socket.socket]) -> None:
    """Where nothing has come yet receive says BlockingIOError."""
    with pytest.raises(BlockingIOError):
        descriptors.receive(pair[1], 64, 4)


def test_end(pair: tuple[socket.socket, socket.socket]) -> None:
    """At the peer's end receive gives an empty packet and no descriptors, and sending raises without a signal."""
    here, there = pair
    here.close()
    assert descriptors.receive(there, 64, 4) == (b"", [])
    with pytest.raises(BrokenPipeError):
        descriptors.send(there, b"late")


def test_buffer_full(pair: tuple[socket.socket, socket.socket]) -> None:
    """Sending into a full buffer says BlockingIOError, and the packet has not gone."""
    here, there = pair
    here.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            descriptors.send(here, b"x" * 1000)
            sent += 1
    assert sent > 0
    for _ in range(sent):
        assert descriptors.receive(there, 2000, 4)[0] == b"x" * 1000
    with pytest.raises(BlockingIOError):
        descriptors.receive(there, 2000, 4)


def test_too_many_descriptors(pair: tuple[socket.socket, socket.socket]) -> None:
    """More descriptors than fit are a PeerError, and those that came are closed."""
    here, there = pair
    descriptors.send(here, b"six", [0] * 6)
    with pytest.raises(PeerError, match="descriptors were cut short"):
        descriptors.receive(there, 64, 4)


def test_packet_too_long(pair: tuple[socket.socket, socket.socket]) -> None:
    """A packet longer than the limit is a PeerError, and the descriptors that came with it are closed."""
    here, there = pair
    descriptors.send(here, b"x" * 65, [0, 0])
    with pytest.raises(PeerError, match="packet was cut short"):
        descriptors.receive(there, 64, 4)


def test_no_descriptor_left(pair: tuple[socket.socket, socket.socket]) -> None:
    """Where the process may not open as many as come it is a PeerError, and those that came are closed."""
    here, there = pair
    descriptors.send(here, b"four", [0] * 4)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 3, hard))
    try:
        with pytest.raises(PeerError, match="descriptors were cut short"):
            descriptors.receive(there, 64, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(last)


def test_close_goes_on(no_leak: None) -> None:
    """Closing several goes on past one that is closed already."""
    first, second = os.dup(0), os.dup(0)
    os.close(first)
    descriptors.close([first, second])


def test_pipe(no_leak: None) -> None:
    """A pipe's read end does not block, its write end does, and no child inherits either."""
    read, write = descriptors.pipe()
    with pytest.raises(BlockingIOError):
        os.read(read, 1)
    assert os.get_blocking(write)
    assert [os.get_inheritable(fd) for fd in (read, write)] == [False, False]
    descriptors.write_all(write, b"x")
    assert os.read(read, 2) == b"x"
    descriptors.close([read, write])


def test_duplicate(no_leak: None) -> None:
    """A copy is another descriptor of the same open file, past stderr, that no child inherits."""
    copy = descriptors.duplicate(0)
    assert copy > 2
    assert os.path.samestat(os.fstat(copy), os.fstat(0))
    assert not os.get_inheritable(copy)
    os.close(copy)


def test_put_in_place(no_leak: None) -> None:
    """What is put in a descriptor's place is open there alone, and a child would inherit it."""
    target = os.dup(0)
    descriptors.put_in_place(os.open("/dev/zero", os.O_RDONLY), target)
    assert os.readlink(f"/proc/self/fd/{target}") == "/dev/zero"
    assert os.get_inheritable(target)
    os.close(target)


def test_writable(no_leak: None) -> None:
    """A pipe that is full is not writable; one that is not, or that nobody can ever read again, lets nobody wait."""
    read, write = descriptors.pipe()
    try:
        os.set_blocking(write, False)
        assert descriptors.writable((write, write))
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write, b"x" * 65536)
        assert not descriptors.writable((write,))
        with open(os.devnull, "w") as null:
            assert descriptors.writable((null.fileno(),))
            assert not descriptors.writable((null.fileno(), write)), "one that is full is enough"
        os.read(read, 65536)
        assert descriptors.writable((write,))
    finally:
        os.close(read)
    assert descriptors.writable((write,)), "to fail is not to wait"
    os.close(write)


def test_write_all(no_leak: None) -> None:
    """All of it is written, though the kernel takes it in pieces; without a reader it is an OSError."""
    read, write = os.pipe()
    data = os.urandom(1_000_000)
    with ThreadPoolExecutor(1) as pool, os.fdopen(read, "rb", buffering=0) as reader:
        received = pool.submit(reader.readall)
        descriptors.write_all(write, data)
        os.close(write)
        assert received.result(20) == data
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError):
        descriptors.write_all(write, b"x")
    os.close(write)


def test_write_all_where_others_have_made_it_non_blocking(no_leak: None) -> None:
    """O_NONBLOCK is of the description, which workers share: nothing is lost by it."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    data = os.urandom(1_000_000)
    with ThreadPoolExecutor(1) as pool, os.fdopen(read, "rb", buffering=0) as reader:
        written = pool.submit(descriptors.write_all, write, data)
        written.add_done_callback(lambda _: os.close(write))
        assert reader.readall() == data
        written.result(20)


@pytest.mark.parametrize("closed", [(0,), (1,), (0, 2), (0, 1, 2), ()])
def test_standard_descriptors(closed: tuple[int, ...]) -> None:
    """After ensure_standard 0, 1 and 2 are open, /dev/null where they were closed, and nothing else is."""
    code = (
        "import os, sys; from stillup.host.descriptors import ensure_standard; "
        "before = {int(n): os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')[:-1]}; "
        f"[os.close(fd) for fd in {closed}]; ensure_standard(); "
        "after = {int(n): os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')[:-1]}; "
        f"expected = before | dict.fromkeys({closed}, '/dev/null'); "
        "inherited = all(map(os.get_inheritable, (0, 1, 2))); sys.exit(0 if after == expected and inherited else 9)"
    )
    with Path("/dev/zero").open("r+b", buffering=0) as zero:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdin=zero, stdout=zero, stderr=zero, timeout=30, check=False
        )
    assert done.returncode == 0


def test_one_too_many_is_cut_short(pair: tuple[socket.socket, socket.socket]) -> None:
    """The kernel rounds up the room for descriptors; one more than was asked for is refused all the same."""
    here, there = pair
    descriptors.send(here, b"x", [0, 0])
    with pytest.raises(PeerError, match="descriptors were cut short"):
        descriptors.receive(there, 64, 1)


WRITE_ONLY = """
import fcntl, os, sys
from stillup.host.descriptors import ensure_write_only
ensure_write_only()
print("out", flush=True)
os.write(2, b"err\\n")
modes = [fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE for fd in (1, 2)]
sys.exit({(os.O_WRONLY, os.O_WRONLY): 10, (os.O_RDWR, os.O_RDWR): 20}.get(tuple(modes), 30))
"""


def _written_by(stdout: Any, stderr: Any) -> int:
    argv = [sys.executable, "-c", WRITE_ONLY]
    return subprocess.run(argv, stdout=stdout, stderr=stderr, check=False, timeout=30).returncode


def test_output_is_for_writing(tmp_path: Path) -> None:
    """What can be read as well is opened anew for writing alone: a file at its end, a FIFO, a terminal."""
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    with path.open("r+b") as file:
        assert _written_by(file, file) == 10
    assert path.read_bytes() == b"before\nout\nerr\n"
    with path.open("r+b") as one, path.open("ab") as two:
        assert _written_by(one, two) == 10
    os.mkfifo(tmp_path / "fifo")
    with os.fdopen(os.open(tmp_path / "fifo", os.O_RDWR), "rb", buffering=0) as fifo:
        assert _written_by(fifo, fifo) == 10
        assert fifo.read(100) == b"out\nerr\n"
    master, slave = os.openpty()
    assert _written_by(slave, slave) == 10
    os.close(slave)
    os.close(master)


def test_output_that_stays() -> None:
    """A socket cannot be opened anew, and is written to as it is."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert _written_by(theirs, theirs) == 20
        assert ours.recv(100) in (b"out\n", b"out\nerr\n")
