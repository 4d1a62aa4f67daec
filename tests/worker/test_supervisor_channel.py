"""How a worker takes its listeners over, from a supervisor at the other end of a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import socket
from pathlib import Path

import pytest

from stillup.errors import PeerError
from stillup.host import descriptors
from stillup.host.sockets import describe
from stillup.wire import handoff_messages
from stillup.wire.figure_cells import LAYOUT, OF_LAYOUT, SENT, SIZE
from stillup.wire.handoff_messages import Accept, Hello, Reopened, Taken
from stillup.worker import supervisor_channel as module
from stillup.worker.supervisor_channel import SupervisorChannel, take_over
from tests.worker.fake_supervisor import NONCE, Supervisor, supervised

pytestmark = pytest.mark.usefixtures("no_leak")


def close(ours: SupervisorChannel) -> None:
    ours.close()
    descriptors.close([ours.stdout, ours.stderr])


@pytest.mark.parametrize("batches", [1, 2, 4])
def test_take_over(path: str, batches: int) -> None:
    """A worker that was handed everything, in one batch or several, holds outputs, listeners by name and the queue."""

    def script(supervisor: Supervisor) -> None:
        supervisor.offer()
        size = len(supervisor.all) // batches
        for start in range(0, len(supervisor.all), size):
            supervisor.batch(*supervisor.all[start : start + size])
            supervisor.hear()

    with supervised(path, script) as supervisor:
        ours = take_over(path, NONCE)
        assert (ours.welcome.worker, ours.welcome.generation, ours.welcome.app) == (1, 3, "app:app")
        for number, (name, listener) in enumerate(ours.listeners):
            assert describe(name, listener) == supervisor.infos[number]
            with socket.socket(listener.family) as client:
                client.connect(listener.getsockname())
                listener.accept()[0].close()
        assert ours.queue.cookies == supervisor.queue.cookies
        ours.queue.writer.send(b"by the worker")
        assert supervisor.queue.reader.recv(64) == b"by the worker"
        for output in (ours.stdout, ours.stderr):
            assert os.readlink(f"/proc/self/fd/{output}") == os.devnull
            assert not os.get_inheritable(output)
        close(ours)
    share = [Taken(4 // batches)] * batches
    assert supervisor.heard == [Hello(handoff_messages.PROTOCOL, NONCE), Taken(0), Taken(0), *share]


@pytest.mark.parametrize("size", [SIZE, SIZE - 1])
def test_figures(path: str, tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture) -> None:
    """A worker counts in the file that comes with its welcome; one of a wrong size is left alone."""
    file = tmp_path / "figures"
    file.write_bytes(bytes(size))

    def script(supervisor: Supervisor) -> None:
        supervisor.offer([], figures=file)
        supervisor.batch(supervisor.queue.reader, supervisor.queue.writer)
        supervisor.hear()

    with supervised(path, script):
        ours = take_over(path, NONCE)
        ours.figures[SENT] += 7
        close(ours)
        if isinstance(ours.figures, memoryview):
            mapped = ours.figures.obj
            ours.figures.release()
            assert isinstance(mapped, mmap.mmap)
            mapped.close()
    cells = memoryview(file.read_bytes().ljust(SIZE, b"\0")).cast("Q")
    assert (cells[OF_LAYOUT], cells[SENT]) == ((LAYOUT, 7) if size == SIZE else (0, 0))
    assert ("not seen" in caplog.text) == (size != SIZE)


@pytest.mark.parametrize("count", [2, 1])
def test_a_log_that_is_reopened(path: str, tmp_path: Path, count: int) -> None:
    """Until a worker is ready what it will write to is replaced; with too few descriptors nothing is, or left open."""
    log = tmp_path / "log"

    def script(supervisor: Supervisor) -> None:
        supervisor.offer([])
        supervisor.batch(supervisor.queue.reader, supervisor.queue.writer)
        supervisor.hear()
        with log.open("wb") as file:
            supervisor.say(Reopened(), *[file.fileno()] * count)
        if count == 2:
            supervisor.say(Accept())
        supervisor.hear()

    with supervised(path, script):
        ours = take_over(path, NONCE)
        if count == 2:
            assert isinstance(asyncio.run(ours.hear()), Accept)
        else:
            with pytest.raises(PeerError, match="expected a stdout and a stderr, got 1 descriptor"):
                asyncio.run(ours.hear())
        leads = [os.readlink(f"/proc/self/fd/{fd}") for fd in (ours.stdout, ours.stderr)]
        assert leads == [str(log) if count == 2 else os.devnull] * 2
        close(ours)


def test_no_listeners(path: str) -> None:
    """A supervisor without listeners can hand over the queue as well."""

    def script(supervisor: Supervisor) -> None:
        supervisor.offer([])
        supervisor.batch(supervisor.queue.reader, supervisor.queue.writer)
        supervisor.hear()

    with supervised(path, script) as supervisor:
        ours = take_over(path, NONCE)
        assert ours.listeners == []
        assert ours.queue.cookies == supervisor.queue.cookies
        close(ours)


def test_nobody_there(path: str) -> None:
    """Without a supervisor the worker gets the kernel's own word for it."""
    with pytest.raises(FileNotFoundError):
        take_over(path, NONCE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_somebody_elses_socket(path: str) -> None:
    """A socket on which another user listens is not believed: not even the nonce is sent to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        os.seteuid(1)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        with pytest.raises(PeerError, match=f"{path} is somebody else's"):
            take_over(path, NONCE)
        listener.settimeout(20)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(64) == b""


def test_says_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that says nothing is given up after the deadline of a step, be that an earlier one.

    As where the machine stood still for so long.
    """
    monkeypatch.setattr(module, "HELLO_DEADLINE", 1.5)

    def script(supervisor: Supervisor) -> None:
        with contextlib.suppress(ConnectionError):  # it was given up at that step
            supervisor.welcome()
            supervisor.hear()
            assert supervisor.hear() is None

    with supervised(path, script), pytest.raises(TimeoutError):
        take_over(path, NONCE)
