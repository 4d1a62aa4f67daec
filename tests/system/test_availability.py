"""What those are told who send a service requests: /readyz, HAProxy's agent check, `stillup health`, state by state."""

from __future__ import annotations

import http.client
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.host.tcp_ports import own_port
from tests.system.harness import DEADLINE, eventually, open_socket
from tests.system.killable_service import KillableService

CONNECTION_REFUSED = 0
"""In place of a status."""


class Asked:
    """A service of two workers, asked by all three."""

    def __init__(self, folder: Path) -> None:
        self.admin, self.agent = own_port(), own_port()
        ports = ("--admin-bind", f"127.0.0.1:{self.admin}", "--agent-bind", f"127.0.0.1:{self.agent}")
        self.service = KillableService(folder, *ports, "--stop-delay", "4", workers=2, wait=False)

    def words(self) -> tuple[int, str, str, int, str]:
        """The status and the title of /readyz, what the agent says, health's exit code and the end of what it says."""
        health = self.service.cli("health")
        said = (health.stdout + health.stderr).strip()
        return (*self._readyz(), self._agent(), health.returncode, said)

    def are(self, status: int, code: str, agent: str, health: int, says: str) -> None:
        """Wait until all three say so."""

        def look() -> bool:
            seen = self.words()
            return seen[:4] == (status, code, agent, health) and says in seen[4]

        try:
            eventually(look, "they say so", deadline=10)
        except AssertionError:
            assert self.words() == (status, code, agent, health, says)

    def _readyz(self) -> tuple[int, str]:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self.admin, timeout=DEADLINE)) as connection:
                connection.request("GET", "/readyz")
                response = connection.getresponse()
                body = response.read().decode()
        except ConnectionError:
            return CONNECTION_REFUSED, ""
        return response.status, next((code for code in ("cordoned", "not-ready") if f":{code}" in body), "ready")

    def _agent(self) -> str:
        try:
            with socket.create_connection(("127.0.0.1", self.agent), DEADLINE) as sock:
                return b"".join(iter(lambda: sock.recv(100), b"")).decode().rstrip("\n")
        except ConnectionError:
            return ""


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    """One whose first workers wait in their import."""
    asked = Asked(tmp_path)
    for worker in ("1.1", "1.2"):
        (tmp_path / f"hold-{worker}").touch()
    with asked.service:
        yield asked
        asked.service.process.send_signal(signal.SIGTERM)
        asked.service.process.wait(DEADLINE)


def test_each_state(asked: Asked, tmp_path: Path) -> None:
    """From the first boot to the end, in the words of the one who asks."""
    service = asked.service
    eventually((service.runtime / "control.sock").exists, "it runs")
    starting = (503, "not-ready", "down #the service is starting", 1, "the service is starting")
    asked.are(*starting)
    (tmp_path / "hold-1.1").unlink()
    asked.are(503, *starting[1:])  # the first generation serves when all its workers do
    (tmp_path / "hold-1.2").unlink()
    serves = (200, "ready", "up 100%", 0, "serves")
    asked.are(*serves)

    # One worker is there, then none; both are to come again, and wait.
    for worker in ("1.1", "1.2"):
        (tmp_path / f"hold-{worker}").touch()
    pids = service.pids()
    os.kill(pids["1.1"], signal.SIGKILL)
    asked.are(200, "ready", "up 50%", 0, "serves")
    os.kill(pids["1.2"], signal.SIGKILL)
    asked.are(503, "not-ready", "down #0 of 2 workers serve", 1, "0 of 2 workers serve")
    for worker in ("1.1", "1.2"):
        (tmp_path / f"hold-{worker}").unlink()
    asked.are(*serves)

    # An old generation drains beside the one that serves.
    with closing(open_socket(service.address())) as slow:
        slow.sendall(b"GET /wait?gate=old HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually((tmp_path / "old.reached").exists, "a request is in progress")
        service.client.reload(wait="cut-over")
        assert service.generations() == [1, 2]
        asked.are(*serves)
        (tmp_path / "old").touch()
        assert slow.recv(4096).startswith(b"HTTP/1.1 200")

    service.client.cordon()
    asked.are(503, "cordoned", "up 0%", 0, "is cordoned")
    service.client.uncordon()
    asked.are(*serves)

    # Nobody listens in the dead supervisor's place until the next one takes over.
    service.die()
    asked.are(CONNECTION_REFUSED, "", "", 1, "2 workers serve on")
    service.start()
    service.until_serving()
    asked.are(*serves)

    # It stops: announced first, then for as long as somebody is served.
    with closing(open_socket(service.address())) as slow:
        slow.sendall(b"GET /wait?gate=last HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually((tmp_path / "last.reached").exists, "a request is in progress")
        service.process.send_signal(signal.SIGTERM)
        asked.are(503, "cordoned", "up 0%", 0, "is cordoned")
        asked.are(503, "not-ready", "up 0%", 1, "the service is stopping")
        (tmp_path / "last").touch()
        assert slow.recv(4096).startswith(b"HTTP/1.1 200")
    service.process.wait(DEADLINE)
    asked.are(CONNECTION_REFUSED, "", "", 1, "no supervisor runs in")
