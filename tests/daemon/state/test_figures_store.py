"""The figures of the living and the dead, whenever whoever keeps them is interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillup.core.commands import Spawn
from stillup.core.events import Event
from stillup.core.fleet_changes import FleetChanges
from stillup.core.model import Fleet, Release
from stillup.daemon.state import figure_files, figures_store
from stillup.daemon.state.custody import Custody
from stillup.daemon.state.figure_files import FigureFiles, Totals
from stillup.daemon.state.figures_store import Figures
from stillup.daemon.workers.admission import Admission
from stillup.daemon.workers.worker_channels import WorkerChannels
from stillup.errors import Refused
from stillup.host import shared_cells
from stillup.host.descriptors import close, receive
from stillup.host.processes import Process, hold
from stillup.host.runtime_directory import RuntimeDirectory, claim
from stillup.wire import figure_cells, handoff_messages
from stillup.wire.figure_cells import LAYOUT, OF_LAYOUT, SENT
from stillup.wire.handoff_messages import Hello, Welcome
from stillup.wire.runtime_paths import FIGURES
from tests.asgi.event_loops import until

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[RuntimeDirectory]:
    """A runtime directory of ours, which a stop leaves empty."""
    held = claim(str(tmp_path / "rt"))
    yield held
    for path in shared_cells.found(shared_cells.place(held.path, FIGURES)):
        os.unlink(path)
    held.remove(f"{FIGURES}.json")
    held.close()


WORKERS: dict[int, int] = {}
"""By serial, the memory as the workers have it."""


@pytest.fixture(autouse=True)
def workers(no_leak: None) -> Iterator[None]:
    yield
    close(WORKERS.values())
    WORKERS.clear()


def start(store: FigureFiles, serial: int, **counted: int) -> None:
    """Start a worker, which counts and says so; and a second passes."""
    memory = WORKERS[serial] = os.dup(store.create(serial))
    store.belongs(serial, 1000 + serial, 77)
    shared_cells.write(memory, OF_LAYOUT, LAYOUT)
    count(serial, **counted)
    store.look()


def count(serial: int, **counted: int) -> None:
    for name, value in counted.items():
        shared_cells.write(WORKERS[serial], getattr(figure_cells, name), value)


def sums(totals: Totals) -> tuple[int, int]:
    return totals.service[SENT], totals.service[figure_cells.CUT_OFF]


def another(runtime: RuntimeDirectory, *living: int) -> FigureFiles:
    """The store of the next supervisor, which finds these workers alive."""
    store = FigureFiles(runtime)
    store.load()
    for serial in living:
        store.adopt(serial + 10, 1000 + serial, 77)
    store.settle()
    for serial in living:
        store.came_back(1000 + serial, 77, os.dup(WORKERS[serial]))
    return store


def left(runtime: RuntimeDirectory) -> list[str]:
    return shared_cells.found(shared_cells.place(runtime.path, FIGURES))


def test_the_dead_count_on(runtime: RuntimeDirectory) -> None:
    """What workers have counted is the sum, and stays it when they have ended."""
    store = FigureFiles(runtime)
    start(store, 1, SENT=10, CUT_OFF=2, LAG=3)
    start(store, 2, SENT=5, LAG=8)
    totals = store.totals()
    assert (*sums(totals), totals.lag) == (15, 2, 8)
    count(1, SENT=11)
    store.ended(1)
    totals = store.totals()
    assert (*sums(totals), totals.lag) == (16, 2, 8)
    store.ended(2)
    store.ended(2)
    store.ended(99)
    assert sums(store.totals()) == (16, 2)
    assert left(runtime) == []
    store.close()


def test_another_supervisor_goes_on(runtime: RuntimeDirectory) -> None:
    """It finds what was counted: of the dead, of those who died meanwhile, and of those who live, by another serial."""
    store = FigureFiles(runtime)
    for serial in (1, 2, 3):
        start(store, serial, SENT=serial)
    store.ended(1)
    store.count(FleetChanges(succeeded=4), {})
    before = store.totals()
    store.close()
    store = another(runtime, 3)
    assert sums(store.totals()) == sums(before) == (6, 0)
    assert store.totals().supervisor[figure_cells.SUCCEEDED] == 4
    count(3, SENT=30)
    assert sums(store.totals()) == (33, 0)
    store.ended(13)
    assert sums(store.totals()) == (33, 0)
    store.close()


def test_what_is_counted_without_a_supervisor(runtime: RuntimeDirectory) -> None:
    """It is there when the worker comes back, or is found by /proc; of one that has died it is what was seen last."""
    store = FigureFiles(runtime)
    start(store, 1, SENT=1)
    start(store, 2, SENT=1)
    store.belongs(2, os.getpid(), 77)
    start(store, 3, SENT=1)
    store.close()
    for serial in (1, 2, 3):
        count(serial, SENT=100)
    store = FigureFiles(runtime)
    store.load()
    store.came_back(1001, 77, os.dup(WORKERS[1]))  # before it is known that it lives
    store.came_back(1001, 77, os.dup(WORKERS[1]))
    store.adopt(11, 1001, 77)
    store.adopt(12, os.getpid(), 77)
    store.settle()
    assert sums(store.totals()) == (100 + 100 + 1, 0)
    store.close()


def test_what_is_brought_back(runtime: RuntimeDirectory) -> None:
    """Only the very memory that a worker was given is read from then on; whatever else it brings is closed."""
    store = FigureFiles(runtime)
    start(store, 1, SENT=1)
    start(store, 2, SENT=2)
    store.close()
    store = FigureFiles(runtime)
    store.load()
    others = (shared_cells.create_memory(), os.open(os.devnull, os.O_RDWR), os.dup(WORKERS[2]), os.memfd_create("x"))
    for fd in others:
        store.came_back(1001, 77, fd)
        store.adopt(11, 1001, 77)
    store.settle()
    store.came_back(1001, 77, shared_cells.create_memory())
    store.came_back(9999, 77, shared_cells.create_memory())
    count(1, SENT=50)
    assert sums(store.totals()) == (1 + 2, 0)
    store.came_back(1001, 77, os.dup(WORKERS[1]))
    assert sums(store.totals()) == (50 + 2, 0)
    store.came_back(1001, 77, os.dup(WORKERS[1]))  # it has it already
    store.close()


def test_lies(runtime: RuntimeDirectory) -> None:
    """A worker may write what it likes: no counter falls, none is beyond what can be, and the others' are theirs."""
    store = FigureFiles(runtime)
    start(store, 1, SENT=10)
    start(store, 2, SENT=5)
    for value in (0, 3, 2**53 + 1, 2**64 - 1):
        count(1, SENT=value, CUT_OFF=value, LAG=value)
        totals = store.totals()
        assert (totals.service[SENT], totals.service[figure_cells.CUT_OFF]) in {(15, 0), (15, 3)}
        assert totals.lag <= figure_cells.MOST_COUNTED
    os.pwrite(WORKERS[1], b"\xff" * figure_cells.SIZE, 0)
    assert sums(store.totals()) == (15, 3)
    with pytest.raises(PermissionError):
        os.ftruncate(WORKERS[1], 0)
    store.ended(1)
    assert sums(store.totals()) == (15, 3)
    store.close()


class Killed(BaseException):
    """The supervisor has got a SIGKILL."""


@pytest.mark.parametrize("place", ["before the base is written", "before a file goes", "between two files"])
def test_killed_while_it_buries(runtime: RuntimeDirectory, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever it is killed, the next one has every file once: neither lost nor twice."""
    store = FigureFiles(runtime)
    for serial in (1, 2, 3):
        start(store, serial, SENT=serial, CUT_OFF=1)
    store.close()
    removed: list[str] = []

    def kill(*_: object, **__: object) -> None:
        raise Killed

    def remove_one(path: str) -> None:
        if removed:
            raise Killed
        removed.append(path)
        os.unlink(path)

    with monkeypatch.context() as patch:
        if place == "before the base is written":
            patch.setattr(RuntimeDirectory, "replace", kill)
        else:
            patch.setattr(shared_cells, "remove", kill if place == "before a file goes" else remove_one)
        doomed = FigureFiles(runtime)
        doomed.load()
        doomed.adopt(13, 1003, 77)
        with pytest.raises(Killed):
            doomed.settle()
        doomed.close()
    assert len(left(runtime)) == (2 if removed else 3)
    store = another(runtime, 3)
    assert sums(store.totals()) == (6, 3)
    store.close()
    # And once more, now that the base names nobody.
    store = another(runtime, 3)
    assert sums(store.totals()) == (6, 3)
    assert len(left(runtime)) == 1
    store.close()


def test_a_full_disk(runtime: RuntimeDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """While the base cannot be written nothing is lost: the files stay until it can; it is told once."""
    store = FigureFiles(runtime)
    obstacle = Path(runtime.file(f"{FIGURES}.json"))
    obstacle.mkdir()
    for serial in (1, 2):
        start(store, serial, SENT=serial)
        store.ended(serial)
    assert sums(store.totals()) == (3, 0)
    assert len(left(runtime)) == 2
    assert len(caplog.records) == 1
    obstacle.rmdir()
    store.close()
    store = another(runtime)
    assert sums(store.totals()) == (3, 0)
    assert left(runtime) == []


@pytest.mark.parametrize("content", [b"", b"{}", b'{"layout": 99}'])
def test_a_base_of_no_use(runtime: RuntimeDirectory, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and all begins anew, with those who live."""
    store = FigureFiles(runtime)
    start(store, 1, SENT=1)
    store.close()
    runtime.replace(f"{FIGURES}.json", content)
    store = another(runtime, 1)
    assert "figures begin anew" in caplog.text
    assert sums(store.totals()) == (1, 0)
    store.close()


def test_another_boot(runtime: RuntimeDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was counted before the host's start is not counted on."""
    store = FigureFiles(runtime)
    start(store, 1, SENT=1)
    store.count(FleetChanges(succeeded=4), {})
    store.close()
    monkeypatch.setattr(figure_files, "boot_id", lambda: "another")
    store = another(runtime, 1)
    assert (sums(store.totals()), store.totals().supervisor[figure_cells.SUCCEEDED]) == ((0, 0), 0)
    assert left(runtime) == []


def test_what_somebody_put_there(runtime: RuntimeDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is none of ours is told of, and not counted."""
    os.mkfifo(f"{shared_cells.place(runtime.path, FIGURES)}fifo")
    store = another(runtime)
    assert "fifo is not counted" in caplog.text
    store.remove()
    assert left(runtime) == []


def test_nothing_is_left(runtime: RuntimeDirectory) -> None:
    """A stop leaves no file, whoever lives."""
    store = FigureFiles(runtime)
    start(store, 1, SENT=1)
    start(store, 2, SENT=1)
    store.ended(2)
    store.remove()
    assert os.listdir(runtime.path) == ["lock"]
    assert left(runtime) == []


def test_no_place(runtime: RuntimeDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file system in memory a worker has no file, which says why; the rest works."""
    monkeypatch.setattr(shared_cells, "_IN_MEMORY", frozenset())
    store = FigureFiles(runtime)
    with pytest.raises(OSError, match="no file system in memory"):
        store.create(1)
    store.belongs(1, 1, 1)
    store.ended(1)
    assert sums(store.totals()) == (0, 0)
    store.remove()


async def test_a_disk_that_hangs(runtime: RuntimeDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is started without figures then, and whoever asks for them is refused; later all is in order."""
    for name in ("PATIENCE", "ANSWER_PATIENCE"):
        monkeypatch.setattr(figures_store, name, 0.05)
    store, goes_on = FigureFiles(runtime), threading.Event()
    kept = Figures(store)
    kept._later(goes_on.wait)
    await kept.begin(1)
    assert kept.descriptors(1) == []
    with pytest.raises(Refused, match="cannot be read now"):
        await kept.totals()
    goes_on.set()
    for name in ("PATIENCE", "ANSWER_PATIENCE"):
        monkeypatch.setattr(figures_store, name, 20.0)
    kept.ended(1)
    assert sums(await kept.totals()) == (0, 0)
    await kept.remove()
    kept.close()


async def test_no_thread(runtime: RuntimeDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """Where no thread can be had there are no figures; that is told, and nobody waits."""
    kept = Figures(FigureFiles(runtime))
    kept.close()
    await kept.begin(1)
    kept.ended(1)
    with pytest.raises(Refused):
        await kept.totals()
    assert "figures are not kept" in caplog.text


@pytest.mark.parametrize(("serial", "descriptors"), [(1, 3), (2, 2)])
async def test_a_worker_is_welcomed_with_its_file(tmp_path: Path, serial: int, descriptors: int) -> None:
    """A worker has it with its welcome, beside its stdout and stderr; one for which there is none has those alone."""
    path = str(tmp_path / "handoff.sock")
    with contextlib.ExitStack() as stack:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        sock.bind(path)
        sock.listen()
        custody = Custody()
        stack.callback(custody.close)

        async def ask(_: Event) -> Fleet:
            return Fleet()

        channels = WorkerChannels(lambda _: None)
        admission = Admission(
            sock, custody, channels, lambda _: None, ask, figures=lambda serial: [1] if serial == 1 else []
        )
        stack.callback(admission.close)
        process = hold(os.getpid())
        stack.callback(process.close)
        spawned: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        spawned.set_result(process)
        welcome = Welcome(handoff_messages.PROTOCOL, 1, 1, "app:app", "/", "/", {}, drain_timeout=1.0, boot_timeout=1.0)
        release = Release(app="app:app", python="python3", directory="/")
        admission.expect("nonce", Spawn(serial, 1, 1, release, 1.0, 1.0), spawned, lambda: welcome)
        worker = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK))
        worker.connect(path)
        worker.send(handoff_messages.encode(Hello(handoff_messages.PROTOCOL, "nonce")))
        heard = asyncio.Event()
        asyncio.get_running_loop().add_reader(worker, heard.set)
        await heard.wait()
        asyncio.get_running_loop().remove_reader(worker)
        packet, fds = receive(worker, handoff_messages.MESSAGE_LIMIT, handoff_messages.BATCH_LIMIT)
        close(fds)
        assert handoff_messages.decode_from_supervisor(packet) == welcome
        assert len(fds) == descriptors
    await asyncio.sleep(0)
    await until(lambda: not admission._tasks)
