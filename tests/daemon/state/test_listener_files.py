"""Unix listeners whose files are gone, and what a rollout makes of them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from stillup.core.events import CordonAsked
from stillup.core.states import SUPERSEDED
from stillup.daemon.control import responses
from stillup.daemon.state import listener_files as module
from stillup.daemon.state.custody import Custody
from stillup.daemon.state.listener_files import ListenerFiles
from stillup.errors import Refused
from stillup.host.socket_files import UnixFile
from stillup.host.sockets import Listener, open_listener
from stillup.wire.address import Bind, parse_binds
from stillup.wire.api_shapes import ListenerView
from tests.core.story import Story


class Scene:
    """A TCP listener and a Unix one in custody."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "app.sock"
        self.noted = 0
        binds = parse_binds(["web=127.0.0.1:0", f"local=unix:{self.path}"])
        self.custody = Custody(binds)
        self.custody.open(binds, 16)
        self.files = ListenerFiles(self.custody, 16, self._note)

    async def _note(self) -> None:
        self.noted += 1

    def connects(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(str(self.path)) == 0


@pytest.fixture
def scene(tmp_path: Path, no_leak: None) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.files.close()
    made.custody.end()


async def test_what_is_there_is_left_alone(scene: Scene) -> None:
    """A reload changes nothing about a file that is there."""
    before = scene.custody.descriptors()
    assert await scene.files.lost() == {}
    async with scene.files.put_back():
        assert scene.custody.descriptors() == before
    assert scene.noted == 0


async def test_put_back(scene: Scene) -> None:
    """A file that is gone is there again from the request on, and stays after the cut-over."""
    scene.path.unlink()
    assert await scene.files.lost() == {"local": "its file is gone"}
    async with scene.files.put_back():
        assert scene.connects()
        assert scene.noted == 1
    scene.files.hear("rollout.cut-over", {})
    assert await scene.files.lost() == {}
    scene.files.hear("rollout.aborted", {"reason": "import"})
    assert scene.connects(), "a later rollout's end is none of its"


async def test_another_file(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """What somebody else has put there is said, and never replaced while somebody listens on it."""
    scene.path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(scene.path))
        other.listen()
        assert await scene.files.lost() == {"local": "its file is gone, and another socket is there"}
        await goes_on_without(
            scene, caplog, "another socket is there, and it cannot be put back: .*somebody listens there"
        )
    scene.path.unlink()
    scene.path.touch()
    assert await scene.files.lost() == {"local": "its file is gone, and another file is there"}
    await goes_on_without(scene, caplog, "another file is there, and it cannot be put back: .*no socket; move it away")


async def goes_on_without(scene: Scene, caplog: pytest.LogCaptureFixture, why: str) -> None:
    """Whoever owns the directory keeps no rollout from beginning: it is said, and the old socket stays."""
    before = scene.custody.descriptors()
    caplog.clear()
    asked = False
    async with scene.files.put_back():
        asked = True
    assert asked
    assert scene.custody.descriptors() == before
    assert re.search(f"listener 'local': its file is gone, and {why}.*the rollout goes on", caplog.text)
    scene.files.hear("rollout.aborted", {"reason": "import"})
    assert scene.path.exists(), "what is another's stays"


@pytest.mark.parametrize("superseded_first", [False, True])
async def test_aborted(scene: Scene, superseded_first: bool) -> None:
    """If the rollout is aborted nobody accepts there, and it is as before; not if another takes its place at once."""
    _, before = scene.custody.descriptors()[0]
    scene.path.unlink()
    async with scene.files.put_back():
        pass
    if superseded_first:
        scene.files.hear("rollout.aborted", {"reason": SUPERSEDED})
        assert scene.connects()
    scene.files.hear("rollout.aborted", {"reason": "probe"})
    assert scene.custody.descriptors()[0][1] == before
    await gone(scene)
    assert scene.noted == 2


async def gone(scene: Scene) -> None:
    """Wait until the file is gone: a thread removes it."""
    while tasks := {*scene.files._tasks, *scene.files._closing}:
        done, _ = await asyncio.wait(tasks, timeout=20)
        assert done
        await asyncio.sleep(0)
    assert not scene.path.exists()


async def test_the_loop_removes_no_file(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path may lead to a disk that hangs."""
    threads: list[int] = []
    remove = UnixFile.remove

    def seen(file: UnixFile) -> None:
        threads.append(threading.get_ident())
        remove(file)

    scene.path.unlink()
    async with scene.files.put_back():
        monkeypatch.setattr(UnixFile, "remove", seen)
    scene.files.hear("rollout.aborted", {"reason": "probe"})
    await gone(scene)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_two_at_once(scene: Scene) -> None:
    """The second one waits until the first is decided on, and puts back again what a refusal has taken away."""
    scene.path.unlink()
    entered = asyncio.Event()

    async def second() -> None:
        async with scene.files.put_back():
            entered.set()
            assert scene.connects()

    with contextlib.suppress(Refused):
        async with scene.files.put_back():
            task = asyncio.create_task(second())
            for _ in range(10):
                await asyncio.sleep(0.001)
            assert not entered.is_set()
            raise Refused("stopping", code="stopping")
    await task
    assert scene.connects()
    async with scene.files.put_back():
        assert scene.connects()
    assert scene.noted == 3, "there again, gone again, there again"


async def test_called_off(scene: Scene) -> None:
    """Who asks may end while the engine has not decided yet: no worker would have the new socket."""
    _, before = scene.custody.descriptors()[0]
    scene.path.unlink()
    entered = asyncio.Event()

    async def asks() -> None:
        async with scene.files.put_back():
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(asks())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert scene.custody.descriptors()[0][1] == before
    await gone(scene)
    assert scene.noted == 2


@pytest.mark.parametrize("called_off", [True, False])
async def test_a_bind_that_nobody_waits_for_any_more(
    scene: Scene, called_off: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Called off, or longer than there is time for: the rollout goes on, and what is made leaves no socket and file."""
    scene.path.unlink()
    begun, free = threading.Event(), threading.Event()

    def slow(bind: Bind, backlog: int) -> Listener:
        begun.set()
        free.wait(20)
        return open_listener(bind, backlog)

    async def asks() -> None:
        async with scene.files.put_back():
            pass

    monkeypatch.setattr(module, "open_listener", slow)
    monkeypatch.setattr(module, "LONGEST_BIND", 20 if called_off else 0.01)
    task = asyncio.create_task(asks())
    await asyncio.to_thread(begun.wait, 20)
    if called_off:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        await task
        assert "does not answer within 0.01 s" in caplog.text
    async with asyncio.timeout(20):
        await asks()  # while the thread is still at it: it is not waited for, and no other one is begun
    made = [*scene.files._binding.values()]
    assert len(made) == 1
    free.set()
    await asyncio.wait(made)
    await gone(scene)
    assert scene.noted == 0


async def test_many_look(scene: Scene) -> None:
    """Who has waited for a look is told what that one saw, also when the next has begun before it went on."""
    scene.path.unlink()

    async def looks() -> None:
        for _ in range(20):
            assert await scene.files.lost() == {"local": "its file is gone"}

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(looks())
            await asyncio.sleep(0)


async def test_refused(scene: Scene) -> None:
    """If the rollout is refused it is as before."""
    scene.path.unlink()
    with pytest.raises(Refused, match="stopping"):
        async with scene.files.put_back():
            raise Refused("stopping", code="stopping")
    await gone(scene)


async def test_gone_again(scene: Scene) -> None:
    """One that is gone again before the cut-over is put back by the next request, and its abort leads to the first."""
    _, before = scene.custody.descriptors()[0]
    for _ in range(2):
        scene.path.unlink()
        async with scene.files.put_back():
            assert scene.connects()
    scene.files.hear("rollout.aborted", {"reason": "probe"})
    assert scene.custody.descriptors()[0][1] == before
    await gone(scene)


async def test_a_disk_that_hangs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that does not end is waited for shortly, and takes one thread however often is asked."""
    looks: list[None] = []
    free = threading.Event()

    def hangs(_: object) -> dict[str, str]:
        looks.append(None)
        free.wait(20)
        return {}

    monkeypatch.setattr(module, "_lost", hangs)
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    for _ in range(3):
        assert await scene.files.lost() == {}
    free.set()
    look = scene.files._look
    assert look is not None
    assert await look == {}
    assert len(looks) == 1


def test_readiness_under_a_cordon() -> None:
    """It is not 'cordoned', which serves, when nobody can connect."""
    story = Story()
    story.reload()
    story.ready(1)
    story.serve(1)
    story.tell(CordonAsked("test"))
    for trouble, code in (("", "cordoned"), ("its file is gone", "not-ready")):
        answer = responses.ready(story.fleet, 404, [ListenerView("local", "unix:/local", trouble)])
        assert cast("Any", msgspec.json.decode(answer.body))["type"].endswith(code)


@pytest.mark.parametrize(("troubled", "status"), [(0, 200), (1, 200), (2, 503)])
def test_readiness(troubled: int, status: int) -> None:
    """Not ready is a service that nobody can connect to; one that has another listener says what is wrong."""
    story = Story()
    story.reload()
    story.ready(1)
    story.serve(1)
    views = [ListenerView(str(n), f"unix:/{n}", "its file is gone" if n < troubled else "") for n in range(2)]
    answer = responses.ready(story.fleet, 503, views)
    said = cast("Any", msgspec.json.decode(answer.body))
    assert answer.status_code == status
    if status == 200:
        assert said["trouble"] == [f"unix:/{n}: its file is gone" for n in range(troubled)]
    else:
        assert "unix:/0: its file is gone; unix:/1: its file is gone" in said["detail"]
