"""Listeners that a reload brings and leaves out: real sockets, and a fleet that says what it wants."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from stillup.core.commands import KeepListeners
from stillup.core.listener_key import ListenerKey
from stillup.daemon.settings.bind_changes import listener_key
from stillup.daemon.state import listener_changes as module
from stillup.daemon.state.custody import Custody
from stillup.daemon.state.listener_changes import ListenerChanges
from stillup.errors import Refused
from stillup.host.adoption_queue import cookie
from stillup.host.socket_files import UnixFile
from stillup.host.sockets import open_listener
from stillup.wire.address import Bind, parse_binds
from tests.asgi.event_loops import until


class Scene:
    """A TCP listener in custody, and what is wanted."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "app.sock"
        self.web, self.local = parse_binds(["web=127.0.0.1:0", f"local=unix:{self.path}"])
        self.wanted = [listener_key(self.web)]
        self.custody = Custody([self.web])
        self.custody.open([self.web], 16)
        self.noted: list[list[str]] = []
        """What was held each time when that was put on record."""
        self.said: list[tuple[str, str]] = []
        self.told: list[tuple[int, list[int]]] = []
        self.changes = ListenerChanges(
            self.custody,
            16,
            wanted=lambda: self.wanted,
            changed=self._note,
            announce=self._announce,
            tell=lambda serial, cookies: self.told.append((serial, cookies)),
        )

    async def _note(self) -> None:
        self.noted.append([key.name for key in self.custody.keys])

    def _announce(self, kind: str, data: Mapping[str, Any]) -> None:
        self.said.append((kind, data["address"]))

    def connects(self) -> int:
        """Whether a client comes to the path: 0, or why not."""
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(str(self.path))

    async def have(self, *binds: Bind) -> None:
        """A rollout was made of these."""
        async with self.changes.bound(binds):
            self.wanted = [listener_key(bind) for bind in binds]

    async def keep(self, *keys: ListenerKey, workers: tuple[int, ...] = ()) -> None:
        """The fleet wants these and no others."""
        self.wanted = list(keys)
        self.changes.keep(KeepListeners(keys, workers))
        await self.settled()

    async def settled(self) -> None:
        await until(lambda: not self.changes._tasks)


@pytest.fixture
def scene(tmp_path: Path, no_leak: None) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.custody.end()


async def test_one_that_is_new_listens_before_it_is_asked_for(scene: Scene) -> None:
    """It is on record by then; it is told of when there is a rollout."""
    async with scene.changes.bound([scene.web, scene.local]):
        assert scene.connects() == 0
        assert (scene.noted, scene.said) == ([["web", "local"]], [])
        scene.wanted.append(listener_key(scene.local))
    await scene.settled()
    assert scene.said == [("listener.added", f"unix:{scene.path}")]
    assert (scene.connects(), len(scene.noted)) == (0, 1)


@pytest.mark.parametrize("error", [Refused("no", code="stopping"), asyncio.CancelledError()])
async def test_without_a_rollout_it_is_closed_again(scene: Scene, error: BaseException) -> None:
    """Its file goes with it; who asked may have been refused, or have left."""

    async def ask() -> None:
        async with scene.changes.bound([scene.web, scene.local]):
            raise error

    with pytest.raises(type(error)):
        await ask()
    await scene.settled()
    assert not scene.path.exists()
    assert scene.noted == [["web", "local"], ["web"]]
    assert scene.said == [], "nobody was told that it was there"


async def test_one_that_cannot_be_had_refuses_the_reload(scene: Scene) -> None:
    """With its address and why; what could be had beside it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(Refused, match=f"cannot bind {taken}: address already in use") as caught:
            async with scene.changes.bound([scene.local, *parse_binds([taken])]):
                pytest.fail("nothing is asked for")
    assert caught.value.code == "configuration"
    await scene.settled()
    assert (scene.path.exists(), scene.noted, len(scene.custody.infos)) == (False, [], 1)


async def test_what_nobody_wants_is_closed_and_workers_are_told(scene: Scene) -> None:
    """Its file first, then the record; the workers last, with the numbers of those that are left."""
    await scene.have(scene.web, scene.local)
    (left, _) = scene.custody.numbers()
    await scene.keep(listener_key(scene.web), workers=(3, 4))
    assert scene.connects() == errno.ENOENT
    assert scene.noted[-1] == ["web"]
    assert scene.said[-1] == ("listener.closed", f"unix:{scene.path}")
    assert scene.told == [(3, [left]), (4, [left])]


async def test_asked_for_again_while_it_is_held(scene: Scene) -> None:
    """The same socket is used, and nothing is bound twice; also if it is let go of while that is asked."""
    await scene.have(scene.web, scene.local)
    before = scene.custody.numbers()
    async with scene.changes.bound([scene.web, scene.local]):
        scene.wanted = [listener_key(scene.web)]
        scene.changes.keep(KeepListeners(tuple(scene.wanted)))
        await asyncio.sleep(0)
        assert scene.connects() == 0
        scene.wanted.append(listener_key(scene.local))
    await scene.settled()
    assert (scene.custody.numbers(), len(scene.said)) == (before, 1)


async def test_asked_for_again_while_it_is_being_closed(scene: Scene) -> None:
    """It is bound anew when the old one's file has gone: one change at a time."""
    await scene.have(scene.web, scene.local)
    before = scene.custody.numbers()
    scene.wanted = [listener_key(scene.web)]
    scene.changes.keep(KeepListeners(tuple(scene.wanted)))
    await asyncio.sleep(0)
    await scene.have(scene.web, scene.local)
    assert scene.connects() == 0
    assert scene.custody.numbers()[1] != before[1]


async def test_what_is_held_with_other_options_is_in_the_way(scene: Scene) -> None:
    """Its socket cannot be given others, and a Unix socket's name says whom its connections' proxy is."""
    await scene.have(scene.web, scene.local)
    for text in (f"local=unix:{scene.path},mode=0600", f"local=unix:{scene.path}2", "local=unix:@other"):
        with pytest.raises(Refused, match="is held until no older generation could want it back") as caught:
            await scene.have(*parse_binds([text]))
        assert caught.value.code == "configuration"
    await scene.have(scene.web, scene.local)
    assert len(scene.custody.infos) == 2


async def test_a_directory_that_does_not_answer(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reload is refused in time, and what comes of it later is closed; so it is when the caller leaves."""
    begun, goes_on = threading.Event(), threading.Event()

    def slowly(bind: Bind, backlog: int) -> object:
        begun.set()
        goes_on.wait(30)
        return open_listener(bind, backlog)

    monkeypatch.setattr(module, "open_listener", slowly)
    leaving = asyncio.ensure_future(scene.have(scene.web, scene.local))
    await until(begun.is_set)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert leaving.cancelled()
    monkeypatch.setattr(module, "LONGEST_BIND", 0.05)
    with pytest.raises(Refused, match="a directory does not answer") as caught:
        await scene.have(scene.web, *parse_binds(["127.0.0.1:0"]))
    assert caught.value.code == "unavailable"
    goes_on.set()
    await scene.settled()
    assert (scene.path.exists(), len(scene.custody.infos)) == (False, 1)


async def test_a_file_that_stays_keeps_nothing_from_being_closed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another owner of the directory may hold it; that is said."""
    await scene.have(scene.web, scene.local)

    def refuse(_: object) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(UnixFile, "remove", refuse)
    await scene.keep(listener_key(scene.web))
    await until(lambda: scene.connects() == errno.ECONNREFUSED)  # a thread closes it
    assert "listener 'local': its file stays: " in caplog.text
    monkeypatch.undo()
    scene.path.unlink()


async def test_after_the_custodys_end_there_is_nothing_to_let_go_of(scene: Scene) -> None:
    """A stop closes everything itself."""
    await scene.have(scene.web, scene.local)
    scene.custody.end()
    await scene.keep(workers=(3,))
    assert scene.told == [], "workers, too, end by themselves then"


async def test_numbers_are_those_of_the_kernel(scene: Scene) -> None:
    """By which a worker knows them."""
    assert scene.custody.numbers() == [cookie(one.listener.socket) for one in scene.custody.listed()]
