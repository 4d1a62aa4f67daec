"""Listeners that a reload brings and leaves out, under load, and while supervisors die: nobody loses a connection."""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from tests.system.bound_service import BoundService, free_port, inode, refuses
from tests.system.clients import Peer, request
from tests.system.harness import eventually, open_socket
from tests.system.steady_load import Traffic


@pytest.mark.parametrize(
    "more", [{}, {"strategy": "rolling", "max-surge": 0, "max-unavailable": 1}], ids=["blue-green", "rolling"]
)
def test_a_move_under_load(tmp_path: Path, more: dict[str, str | int]) -> None:
    """The supervisor is killed and replaced meanwhile; clients move over while the old port is served, none is lost.

    Who is connected by the old port, or by a socket file that was left out, goes on when that is closed.
    """
    old, new, path = free_port(), free_port(), f"unix:{tmp_path}/s"
    service = BoundService(tmp_path, workers=2)
    service.say(old, path, probation=600, **more)
    with service, Peer(old) as by_port, Peer(path) as by_path:
        socket_before = inode(old)
        with Traffic(old, kept=2, fresh=2) as stays:
            service.say(new, probation=600, **more)
            service.client.reload(wait="cut-over")
            with Traffic(new, kept=2, fresh=2) as comes:
                service.die()
                stays.goes_on(20)
                comes.goes_on(20)
                service.start()
                assert service.listens() == {old: "removed", path: "removed", new: "serving"}
                service.client.reexec()
                eventually(lambda: service.until_serving().reexecs == 1, "its program is replaced")
                stays.goes_on(20)
                comes.goes_on(20)
                assert service.listens() == {old: "removed", path: "removed", new: "serving"}
                assert inode(old) == socket_before
        assert {by_port.get().generation, by_path.get().generation} == {2}
        with Traffic(new, kept=2, fresh=2) as comes:
            service.say(new, probation=0, **more)
            service.client.reload(wait="drained")
            service.comes_to_listen({new: "serving"})
            eventually(lambda: refuses(old) and refuses(path), "both are closed")
            comes.goes_on(20)
        assert {by_port.get().generation, by_path.get().generation} == {3}
        assert service.status().crossing.lost == 0
    assert not (tmp_path / "s").exists()


def test_who_connects_before_the_cut_over_waits_for_it(tmp_path: Path) -> None:
    """The new generation answers; a worker of the old one that is started meanwhile leaves such clients alone."""
    old, new = free_port(), free_port()
    service = BoundService(tmp_path)
    service.say(old)
    with service:
        service.hold("2.1")
        service.say(new)
        service.client.reload()
        service.boots("2.1")
        assert service.listens() == {old: "serving", new: "added"}
        with Peer(new) as early:
            early.send(request())
            (worker,) = service.workers()
            assert worker.pid is not None
            psutil.Process(worker.pid).kill()
            eventually(lambda: [w.pid for w in service.workers()] not in ([], [worker.pid]), "another takes its place")
            with Peer(old) as peer:
                assert peer.get().generation == 1
            service.release("2.1")
            assert early.answer().generation == 2


@pytest.mark.parametrize("end", ["abort", "fails", "dies"])
def test_an_aborted_rollout_takes_its_listeners_along(tmp_path: Path, end: str) -> None:
    """Whoever calls it off, or if its supervisor dies: who waited there is told so by the end of the connection."""
    old, path, new = free_port(), tmp_path / "s", free_port()
    service = BoundService(tmp_path)
    service.say(old)
    with service, Traffic(old, kept=1, fresh=1) as traffic:
        service.hold("2.1")
        service.say(old, f"unix:{path}", new)
        rollout = service.client.reload()
        service.boots("2.1")
        with open_socket(new) as early:
            service.say(old)
            if end == "abort":
                service.client.abort()
            elif end == "fails":
                service.write("raise SystemExit(3)")
                psutil.Process(service.workers("booting")[0].pid).send_signal(signal.SIGKILL)
            else:
                service.die()
                service.start()
            assert service.settled(rollout.id).outcome == "aborted"
            service.comes_to_listen({old: "serving"})
            with suppress(ConnectionResetError):
                assert early.recv(1) == b""
        eventually(lambda: refuses(new) and not path.exists(), "both are closed")
        traffic.goes_on(10)


def test_a_release_that_is_rolled_back_finds_its_listener_as_it_was(tmp_path: Path) -> None:
    """It was never closed, and what the crashed release had brought is served by the one before until it is closed."""
    old, new = free_port(), free_port()
    service = BoundService(tmp_path)
    service.say(old, probation=600)
    with service:
        before = inode(old)
        service.say(new, probation=600)
        service.client.reload(wait="cut-over")
        dead: set[int] = set()
        for _ in range(2):
            (pid,) = eventually(lambda: {*service.pids().values()} - dead, "2.1 serves")
            psutil.Process(pid).kill()
            dead.add(pid)
        service.rolled_out(3)
        assert service.listens() == {old: "serving", new: "removed"}
        assert inode(old) == before
        for address in (old, new):
            with Peer(address) as peer:
                assert peer.get().generation == 3


def test_left_out_and_asked_for_again(tmp_path: Path) -> None:
    """While it is held it is the same socket, and is not bound twice; its clients notice nothing."""
    one, other = free_port(), f"unix:{tmp_path}/s"
    service = BoundService(tmp_path)
    service.say(one, other, probation=600)
    with service, Traffic(one, kept=1, fresh=1) as by_port, Traffic(other, kept=1, fresh=1) as by_path:
        before = inode(one)
        for number, binds in enumerate([(other,), (one,), (one, other)], start=2):
            service.say(*binds, probation=600)
            assert service.client.reload(wait="cut-over").generation == number
            assert service.listens() == {
                address: "serving" if address in binds else "removed" for address in (one, other)
            }
        by_port.goes_on(10)
        by_path.goes_on(10)
        assert inode(one) == before


@pytest.mark.parametrize("state", ["added", "removed"])
def test_a_stop_closes_all_of_them(tmp_path: Path, state: str) -> None:
    """Whatever becomes of them just then; no file is left, and nobody waits for ever."""
    old, new = f"unix:{tmp_path}/old", f"unix:{tmp_path}/new"
    service = BoundService(tmp_path)
    service.say(old, probation=600)
    with service:
        if state == "added":
            service.hold("2.1")
        service.say(new, probation=600)
        service.client.reload(wait=None if state == "added" else "cut-over")
        assert state in service.listens().values()
        with open_socket(new) as waits:
            assert service.cli("stop").returncode == 0
            with suppress(ConnectionResetError):
                assert waits.recv(1) == b""
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_socket()) == []


def test_started_again_with_another_file(tmp_path: Path) -> None:
    """Killed, and its file changed before it is started: what the living listen on is served until they have left."""
    old, new = free_port(), free_port()
    service = BoundService(tmp_path)
    service.say(old, probation=0)
    with service, Peer(old) as peer:
        assert peer.get().generation == 1
        service.die()
        service.say(new, probation=0)
        service.start()
        service.rolled_out(2)
        service.comes_to_listen({new: "serving"})
        eventually(lambda: refuses(old), "it is closed")
        assert peer.get().generation == 2


def test_an_inherited_socket_is_not_ours_to_end(tmp_path: Path) -> None:
    """Nor to begin: the reload says whose it is, and what it changes beside that is in force."""
    port = free_port()
    with ExitStack() as stack:
        inherited = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = f"127.0.0.1:{inherited.getsockname()[1]}"
        service = BoundService(tmp_path, inherited=[inherited.fileno()])
        service.say(f"fd:{inherited.fileno()}")
        with service:
            service.say(port, "systemd:web")
            shown = service.reload()
            assert shown.returncode == 0, shown.stderr
            assert f"bind {port} added applied" in shown.stdout
            assert "bind systemd:web: whoever starts the service passes it, as a .socket unit does" in shown.stdout
            assert f"bind fd:{inherited.fileno()}: whoever passes it here has to end that" in shown.stdout
            assert service.listens() == {address: "serving", port: "serving"}


def test_a_name_that_is_another_socket_now(tmp_path: Path) -> None:
    """A port's name may move with it, and both are one name until the old one is closed."""
    old, new = free_port(), free_port()
    service = BoundService(tmp_path)
    service.say(f"web={old}", probation=600)
    with service:
        service.say(f"web={new}", probation=600)
        service.client.reload(wait="cut-over")
        seen = [(one.name, one.address, one.state) for one in service.status().listeners]
        assert seen == [("web", old, "removed"), ("web", new, "serving")]
        service.say(f"web={new}", probation=0)
        service.client.reload(wait="drained")
        service.comes_to_listen({new: "serving"})
        with Peer(new) as peer:
            assert peer.get().generation == 3
