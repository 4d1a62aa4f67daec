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

from supervisor.core.commands import Spawn
from supervisor.core.events import Event
from supervisor.core.model import Fleet, Release
from supervisor.core.tally import Tally
from supervisor.daemon import figures as module
from supervisor.daemon.figures import Figures, Store, Totals
from supervisor.daemon.handoff import HandoffDoor
from supervisor.daemon.holder import Holder
from supervisor.errors import Refused
from supervisor.host import shared
from supervisor.host.descriptors import close, receive
from supervisor.host.processes import Process, hold
from supervisor.host.runtime import RuntimeDirectory, claim
from supervisor.wire import figures, handoff
from supervisor.wire.figures import LAYOUT, OF_LAYOUT, SENT
from supervisor.wire.handoff import Hello, Welcome
from supervisor.wire.places import FIGURES
from tests.asgi.running import until

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[RuntimeDirectory]:
    """A runtime directory of ours, which a stop leaves empty."""
    held = claim(str(tmp_path / "rt"))
    yield held
    for path in shared.found(shared.place(held.path, FIGURES)):
        os.unlink(path)
    held.remove(f"{FIGURES}.json")
    held.close()


def start(store: Store, serial: int, **counted: int) -> None:
    """Start a worker, which counts and says so."""
    fd = store.create(serial)
    store.belongs(serial, 1000 + serial, 77)
    shared.write(fd, OF_LAYOUT, LAYOUT)
    count(store, serial, **counted)


def count(store: Store, serial: int, **counted: int) -> None:
    for name, value in counted.items():
        shared.write(store._files[serial].fd, getattr(figures, name), value)


def sums(totals: Totals) -> tuple[int, int]:
    return totals.service[SENT], totals.service[figures.CUT_OFF]


def another(runtime: RuntimeDirectory, *living: int) -> Store:
    """The store of the next supervisor, which finds these workers alive."""
    store = Store(runtime)
    store.load()
    for serial in living:
        store.adopt(serial + 10, 1000 + serial, 77)
    store.settle()
    return store


def left(runtime: RuntimeDirectory) -> list[str]:
    return shared.found(shared.place(runtime.path, FIGURES))


def test_the_dead_count_on(runtime: RuntimeDirectory) -> None:
    """What workers have counted is the sum, and stays it when they have ended."""
    store = Store(runtime)
    start(store, 1, SENT=10, CUT_OFF=2, LAG=3)
    start(store, 2, SENT=5, LAG=8)
    totals = store.totals()
    assert (*sums(totals), totals.lag) == (15, 2, 8)
    count(store, 1, SENT=11)
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
    store = Store(runtime)
    for serial in (1, 2, 3):
        start(store, serial, SENT=serial)
    store.ended(1)
    store.count(Tally(succeeded=4))
    before = store.totals()
    store.close()
    store = another(runtime, 3)
    assert sums(store.totals()) == sums(before) == (6, 0)
    assert store.totals().supervisor[figures.SUCCEEDED] == 4
    count(store, 13, SENT=30)
    assert sums(store.totals()) == (33, 0)
    store.ended(13)
    assert sums(store.totals()) == (33, 0)
    store.close()


class Killed(BaseException):
    """The supervisor has got a SIGKILL."""


@pytest.mark.parametrize("place", ["before the base is written", "before a file goes", "between two files"])
def test_killed_while_it_buries(runtime: RuntimeDirectory, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever it is killed, the next one has every file once: neither lost nor twice."""
    store = Store(runtime)
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
            patch.setattr(shared, "remove", kill if place == "before a file goes" else remove_one)
        doomed = Store(runtime)
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
    store = Store(runtime)
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
    store = Store(runtime)
    start(store, 1, SENT=1)
    store.close()
    runtime.replace(f"{FIGURES}.json", content)
    store = another(runtime, 1)
    assert "figures begin anew" in caplog.text
    assert sums(store.totals()) == (1, 0)
    store.close()


def test_another_boot(runtime: RuntimeDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was counted before the host's start is not counted on."""
    store = Store(runtime)
    start(store, 1, SENT=1)
    store.count(Tally(succeeded=4))
    store.close()
    monkeypatch.setattr(module, "boot_id", lambda: "another")
    store = another(runtime, 1)
    assert (sums(store.totals()), store.totals().supervisor[figures.SUCCEEDED]) == ((0, 0), 0)
    assert left(runtime) == []


def test_what_somebody_put_there(runtime: RuntimeDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is none of ours is told of, and not counted."""
    os.mkfifo(f"{shared.place(runtime.path, FIGURES)}fifo")
    store = another(runtime)
    assert "fifo is not counted" in caplog.text
    store.remove()
    assert left(runtime) == []


def test_nothing_is_left(runtime: RuntimeDirectory) -> None:
    """A stop leaves no file, whoever lives."""
    store = Store(runtime)
    start(store, 1, SENT=1)
    start(store, 2, SENT=1)
    store.ended(2)
    store.remove()
    assert os.listdir(runtime.path) == ["lock"]
    assert left(runtime) == []


def test_no_place(runtime: RuntimeDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file system in memory a worker has no file, which says why; the rest works."""
    monkeypatch.setattr(shared, "_IN_MEMORY", frozenset())
    store = Store(runtime)
    with pytest.raises(OSError, match="no file system in memory"):
        store.create(1)
    store.belongs(1, 1, 1)
    store.ended(1)
    assert sums(store.totals()) == (0, 0)
    store.remove()


async def test_a_disk_that_hangs(runtime: RuntimeDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is started without figures then, and whoever asks for them is refused; later all is in order."""
    for name in ("PATIENCE", "ANSWER_PATIENCE"):
        monkeypatch.setattr(module, name, 0.05)
    store, goes_on = Store(runtime), threading.Event()
    kept = Figures(store)
    kept._later(goes_on.wait)
    await kept.begin(1)
    assert kept.descriptors(1) == []
    with pytest.raises(Refused, match="cannot be read now"):
        await kept.totals()
    goes_on.set()
    monkeypatch.setattr(module, "ANSWER_PATIENCE", 20.0)
    kept.ended(1)
    assert sums(await kept.totals()) == (0, 0)
    await kept.remove()
    kept.close()


async def test_no_thread(runtime: RuntimeDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """Where no thread can be had there are no figures; that is told, and nobody waits."""
    kept = Figures(Store(runtime))
    kept.close()
    await kept.begin(1)
    kept.ended(1)
    with pytest.raises(Refused):
        await kept.totals()
    assert "figures are not kept" in caplog.text


@pytest.mark.parametrize(("protocol", "descriptors"), [(handoff.PROTOCOL, 3), (1, 2)])
async def test_who_is_given_a_file(tmp_path: Path, protocol: int, descriptors: int) -> None:
    """A worker has it with its welcome; one of the protocol before, which takes two descriptors, has none."""
    path = str(tmp_path / "handoff.sock")
    with contextlib.ExitStack() as stack:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        sock.bind(path)
        sock.listen()
        holder = Holder()
        stack.callback(holder.close)

        async def ask(_: Event) -> Fleet:
            return Fleet()

        door = HandoffDoor(sock, holder, lambda _: None, ask, figures=lambda serial: [1] if serial == 1 else [])
        stack.callback(door.close)
        process = hold(os.getpid())
        stack.callback(process.close)
        spawned: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        spawned.set_result(process)
        welcome = Welcome(handoff.PROTOCOL, 1, 1, "app:app", "/", "/", {}, drain_timeout=1.0, boot_timeout=1.0)
        release = Release(app="app:app", python="python3", directory="/")
        door.expect("nonce", Spawn(1, 1, 1, release, 1.0, 1.0), spawned, lambda: welcome)
        worker = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK))
        worker.connect(path)
        worker.send(handoff.encode(Hello(protocol, "nonce")))
        heard = asyncio.Event()
        asyncio.get_running_loop().add_reader(worker, heard.set)
        await heard.wait()
        asyncio.get_running_loop().remove_reader(worker)
        packet, fds = receive(worker, handoff.MESSAGE_LIMIT, handoff.BATCH_LIMIT)
        close(fds)
        assert handoff.decode_from_supervisor(packet) == handoff.for_version(welcome, protocol)
        assert len(fds) == descriptors
    await asyncio.sleep(0)
    await until(lambda: not door._tasks)
