"""Somebody moves a service to another port, or adds a socket for nginx, in stillup.toml, and reloads."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from tests.system.bound_service import BoundService, free_port, refuses
from tests.system.clients import Peer
from tests.system.harness import eventually, lines


def ask(address: str) -> int:
    """The generation that answers."""
    with Peer(address) as peer:
        return peer.get().generation


def test_moves_the_service_to_another_port(tmp_path: Path) -> None:
    """Both are served until nobody could want the old one back; then it is closed, and who is connected goes on."""
    old, new = free_port(), free_port()
    service = BoundService(tmp_path)
    service.say(old, probation=600)
    with service, Peer(old) as connected:
        assert connected.get().generation == 1
        service.say(new, probation=600)
        shown = service.reload()
        assert shown.returncode == 0, shown.stderr
        assert list(lines(shown.stdout, "config", f"bind {new} added, bind {old} removed applied")), shown.stdout
        assert (ask(new), ask(old)) == (2, 2)
        assert service.listens() == {old: "removed", new: "serving"}
        assert list(lines(service.cli("status").stdout, f"listens   {old}  (left out: closed when"))
        service.say(new, probation=0)
        assert service.reload().returncode == 0
        service.comes_to_listen({new: "serving"})
        eventually(lambda: refuses(old), "it is closed")
        assert (ask(new), connected.get().generation) == (3, 3)
        told = service.cli("events").stdout
        assert list(lines(told, f"listening on {new}, too"))
        assert list(lines(told, f"not listening on {old} any more"))


def test_adds_a_unix_socket_for_nginx(tmp_path: Path) -> None:
    """With its mode and group; taken out again, its file goes as well."""
    port, path = free_port(), tmp_path / "app.sock"
    service = BoundService(tmp_path)
    service.say(port)
    with service:
        service.say(port, f"unix:{path},mode=0660,group={os.getegid()}", probation=0)
        assert service.reload().returncode == 0
        assert (ask(f"unix:{path}"), ask(port)) == (2, 2)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        service.say(port, f"unix:{path},mode=0600", probation=0)
        needs = service.reload().stdout
        assert list(lines(needs, "its name, mode, owner or group", "until the service is stopped and started")), needs
        service.say(port, probation=0)
        assert service.reload().returncode == 0
        service.comes_to_listen({port: "serving"})
        eventually(lambda: not path.exists(), "its file has gone")
        assert ask(port) == 4


def test_moves_to_a_port_that_is_taken(tmp_path: Path) -> None:
    """The reload is rejected before anything starts, with the address and who has it; mended, it is made."""
    port, new = free_port(), free_port()
    service = BoundService(tmp_path)
    service.say(port)
    with service:
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = f"127.0.0.1:{other.getsockname()[1]}"
            service.say(new, taken)
            refused = service.reload()
            assert refused.returncode == 1
            assert f"cannot bind {taken}: address already in use by pid {os.getpid()}" in refused.stderr
            assert (service.generations(), service.listens()) == ([1], {port: "serving"})
            assert refuses(new)
        assert service.reload().returncode == 0
        assert (ask(new), ask(taken)) == (2, 2)
