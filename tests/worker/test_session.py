"""The worker's side of the hand-off, against a supervisor at the other end of a real socket, well behaved or not."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from supervisor.errors import PeerError
from supervisor.host import descriptors
from supervisor.host.adoption import AdoptionQueue, cookie
from supervisor.host.sockets import describe
from supervisor.wire import handoff
from supervisor.wire.figures import LAYOUT, OF_LAYOUT, SENT, SIZE
from supervisor.wire.handoff import (
    Accept,
    Batch,
    BootFailed,
    FromSupervisor,
    FromWorker,
    Hello,
    ListenerInfo,
    Offer,
    Refusal,
    Taken,
    Welcome,
)
from supervisor.worker import session as module
from supervisor.worker.session import Session, take_over

pytestmark = pytest.mark.usefixtures("no_leak")

NONCE = "the nonce"


@dataclass
class Supervisor:
    """One end of the hand-off; it says what it is told to say, and keeps what it hears."""

    sock: socket.socket
    listeners: list[socket.socket]
    queue: AdoptionQueue
    heard: list[FromWorker] = field(default_factory=list)

    def hear(self) -> FromWorker | None:
        """The worker's next word, or None at its end."""
        packet, fds = descriptors.receive(self.sock, handoff.MESSAGE_LIMIT, handoff.BATCH_LIMIT)
        assert not fds
        if not packet:
            return None
        self.heard.append(handoff.decode_from_worker(packet))
        return self.heard[-1]

    def say(self, message: FromSupervisor, *fds: int) -> None:
        descriptors.send(self.sock, handoff.encode(message), fds)

    @property
    def all(self) -> list[socket.socket]:
        """What a worker gets, in its order."""
        return [*self.listeners, self.queue.reader, self.queue.writer]

    @property
    def infos(self) -> list[ListenerInfo]:
        return [describe(f"name-{number}", sock) for number, sock in enumerate(self.listeners)]

    def welcome(self, *, protocol: int = handoff.PROTOCOL, outputs: int = 2, figures: Path | None = None) -> None:
        """Up to the worker's word that it has its outputs."""
        self.hear()
        message = Welcome(
            protocol=protocol,
            worker=1,
            generation=3,
            app="app:app",
            directory="/srv",
            app_dir="/srv",
            options={},
            drain_timeout=30.0,
            boot_timeout=60.0,
        )
        with contextlib.ExitStack() as files:
            null = files.enter_context(open(os.devnull, "wb"))
            more = [] if figures is None else [files.enter_context(figures.open("r+b")).fileno()]
            self.say(message, *[null.fileno()] * outputs, *more)

    def offer(self, infos: list[ListenerInfo] | None = None, figures: Path | None = None) -> None:
        """Up to the worker's word that it knows what is to come."""
        self.welcome(figures=figures)
        self.hear()
        self.say(Offer(self.infos if infos is None else infos, self.queue.cookies))
        self.hear()

    def batch(self, *socks: socket.socket, count: int | None = None) -> None:
        self.say(Batch(len(socks) if count is None else count), *[sock.fileno() for sock in socks])


Script = Callable[[Supervisor], None]


@contextlib.contextmanager
def supervised(path: str, script: Script) -> Iterator[Supervisor]:
    """A supervisor that has two listeners and plays the script for whoever connects; its end is waited for."""
    failures: list[BaseException] = []
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        door.bind(path)
        door.listen()
        door.settimeout(20)
        listeners = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))),
            stack.enter_context(socket.socket(socket.AF_UNIX)),
        ]
        listeners[1].bind("")
        listeners[1].listen()
        # Connected by the script's thread; there before it so that what it heard can be asked for.
        queue = AdoptionQueue.make()
        stack.callback(queue.close)
        supervisor = Supervisor(door, listeners, queue)

        def play() -> None:
            try:
                connection, _ = door.accept()
                with connection:
                    connection.settimeout(20)
                    supervisor.sock = connection
                    script(supervisor)
            except BaseException as error:  # noqa: BLE001 - raised again where the test sees it
                failures.append(error)

        thread = threading.Thread(target=play)
        thread.start()
        try:
            yield supervisor
        finally:
            thread.join(30)
    assert not failures, failures


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the supervisor's door is."""
    return str(tmp_path / "handoff.sock")


def close(session: Session) -> None:
    session.close()
    descriptors.close([session.stdout, session.stderr])


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
        session = take_over(path, NONCE)
        assert (session.welcome.worker, session.welcome.generation, session.welcome.app) == (1, 3, "app:app")
        for number, (name, listener) in enumerate(session.listeners):
            assert describe(name, listener) == supervisor.infos[number]
            with socket.socket(listener.family) as client:
                client.connect(listener.getsockname())
                listener.accept()[0].close()
        assert session.queue.cookies == supervisor.queue.cookies
        session.queue.writer.send(b"by the worker")
        assert supervisor.queue.reader.recv(64) == b"by the worker"
        for output in (session.stdout, session.stderr):
            assert os.readlink(f"/proc/self/fd/{output}") == os.devnull
            assert not os.get_inheritable(output)
        close(session)
    share = [Taken(4 // batches)] * batches
    assert supervisor.heard == [Hello(handoff.PROTOCOL, NONCE), Taken(0), Taken(0), *share]


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
        session = take_over(path, NONCE)
        session.figures[SENT] += 7
        close(session)
        if isinstance(session.figures, memoryview):
            mapped = session.figures.obj
            session.figures.release()
            assert isinstance(mapped, mmap.mmap)
            mapped.close()
    cells = memoryview(file.read_bytes().ljust(SIZE, b"\0")).cast("Q")
    assert (cells[OF_LAYOUT], cells[SENT]) == ((LAYOUT, 7) if size == SIZE else (0, 0))
    assert ("not seen" in caplog.text) == (size != SIZE)


def test_no_listeners(path: str) -> None:
    """A supervisor without listeners can hand over the queue as well."""

    def script(supervisor: Supervisor) -> None:
        supervisor.offer([])
        supervisor.batch(supervisor.queue.reader, supervisor.queue.writer)
        supervisor.hear()

    with supervised(path, script) as supervisor:
        session = take_over(path, NONCE)
        assert session.listeners == []
        assert session.queue.cookies == supervisor.queue.cookies
        close(session)


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
    descriptors.send(supervisor.sock, b"x" * (handoff.MESSAGE_LIMIT + 1), [0, 1])


def give_too_many_descriptors(supervisor: Supervisor) -> None:
    supervisor.hear()
    descriptors.send(supervisor.sock, b"{}", [0] * (handoff.BATCH_LIMIT + 2))


EARLY: list[tuple[Script, str]] = [
    (refuse, "turned away by the supervisor: no worker with that nonce is expected"),
    (hang_up_on_hello, "the supervisor hung up"),
    (speak_another_protocol, f"the supervisor speaks protocol 99, this worker {handoff.PROTOCOL}"),
    (give_one_output, "got 1 descriptors"),
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
    assert supervisor.heard == [Hello(handoff.PROTOCOL, NONCE)]


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


def test_nobody_there(path: str) -> None:
    """Without a supervisor the worker gets the kernel's own word for it."""
    with pytest.raises(FileNotFoundError):
        take_over(path, NONCE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_somebody_elses_door(path: str) -> None:
    """A door on which another user listens is not believed: not even the nonce is said to him."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(path)
        os.seteuid(1)
        try:
            door.listen()
        finally:
            os.seteuid(0)
        with pytest.raises(PeerError, match=f"{path} is somebody else's"):
            take_over(path, NONCE)
        door.settimeout(20)
        connection, _ = door.accept()
        with connection:
            assert connection.recv(64) == b""


def test_says_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that says nothing is given up after the deadline of a step."""
    monkeypatch.setattr(module, "HELLO_DEADLINE", 0.1)

    def script(supervisor: Supervisor) -> None:
        supervisor.welcome()
        supervisor.hear()
        assert supervisor.hear() is None

    with supervised(path, script), pytest.raises(TimeoutError):
        take_over(path, NONCE)
