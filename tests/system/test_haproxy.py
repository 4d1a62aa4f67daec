"""HAProxy before two hosts, one of which is taken out by `stillup cordon --cordon-status 404`: docs/deploy.md."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.tcp_ports import own_port
from tests.system.clients import Peer
from tests.system.haproxy_stats import HaproxyStats
from tests.system.harness import DEADLINE, ROOT, Service, connect, eventually
from tests.system.steady_load import Traffic

pytestmark = [
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed"),
    pytest.mark.xdist_group("load"),
]

CONFIGURATION = """
# A check may wait: a supervisor that stands still on a machine that others use is not down.
global
    stats socket {folder}/stats.sock
defaults
    mode http
    timeout connect 5s
    timeout check 5s
    timeout client 60s
    timeout server 60s
    retries 0
frontend www
    bind {address}
    default_backend shop
{backend}
"""


def _backend(begins: str, services: dict[str, Service], ports: list[int]) -> str:
    """As the page has it, but for the hosts' addresses; there are two of its three."""
    page = (ROOT / "docs" / "deploy.md").read_text()
    (said,) = re.findall(rf"^```haproxy\n(backend shop\n    {begins}.*?)^```", page, re.MULTILINE | re.DOTALL)
    said = "".join(line for line in said.splitlines(keepends=True) if not line.startswith("    server c "))
    addresses = [service.address() for service in services.values()]
    for number, (address, port) in enumerate(zip(addresses, ports, strict=True), 1):
        said = said.replace(f"10.0.0.{number}:8000", address).replace(f"addr 10.0.0.{number} port 9464", f"port {port}")
        said = said.replace(f"agent-addr 10.0.0.{number} agent-port 9777", f"agent-addr 127.0.0.1 agent-port {port}")
    assert "10.0.0." not in said, said
    return str(said)


def _started(stack: contextlib.ExitStack, folder: Path, *words: str) -> Service:
    """A host's service, which answers with its folder's name."""
    folder.mkdir()
    service = Service(folder, "main:app", *words, workers=2)
    service.write(version=folder.name)
    return stack.enter_context(service)


def _pids(services: dict[str, Service]) -> dict[str, set[int]]:
    """Of the workers of each."""
    return {name: {one.pid for one in service.workers() if one.pid} for name, service in services.items()}


@contextlib.contextmanager
def _haproxy(folder: Path, backend: str, port: int) -> Iterator[tuple[str, HaproxyStats]]:
    address = f"127.0.0.1:{port}"
    (folder / "haproxy.cfg").write_text(CONFIGURATION.format(folder=folder, address=address, backend=backend))
    with (folder / "haproxy.log").open("wb") as log:
        argv = ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]
        process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            stats = HaproxyStats(folder)
            eventually((folder / "stats.sock").exists, "HAProxy runs")
            for server in ("a", "b"):
                stats.until(server, "UP")
            yield address, stats
        finally:
            process.terminate()
            process.wait(DEADLINE)
            print((folder / "haproxy.log").read_text())


def test_a_host_is_taken_out_and_comes_back(tmp_path: Path) -> None:
    """No request fails: the one that is cordoned gets no new client, serves whom it has, and is stopped then."""
    with contextlib.ExitStack() as started:
        *admin, port = (own_port() for _ in range(3))
        words = ("--cordon-status", "404", "--timeout-keep-alive", "60")
        services = {
            name: _started(started, tmp_path / name, "--admin-bind", f"127.0.0.1:{number}", *words)
            for name, number in zip("ab", admin, strict=True)
        }
        a, pids = services["a"], _pids(services)
        backend = _backend("option httpchk", services, admin)
        address, stats = started.enter_context(_haproxy(tmp_path, backend, port))
        kept = started.enter_context(Peer(a.address()))  # past the balancer, as a client that it does not see
        assert kept.get().pid in pids["a"]
        with Traffic(address) as traffic:
            eventually(lambda: set(traffic.pids) >= pids["a"] | pids["b"], "both are sent requests")
            assert a.cli("cordon").returncode == 0
            stats.until("a", "NOLB")
            traffic.moves_to(pids["b"])
            before = stats.of("a")["stot"]
            traffic.goes_on(100)
            assert stats.of("a")["stot"] == before, "it is sent nothing"
            answer = kept.get()
            assert (answer.status, answer.pid in pids["a"], answer.closes) == (200, True, True)

            assert a.cli("uncordon").returncode == 0
            stats.until("a", "UP")
            asked = len(traffic.pids)
            eventually(lambda: pids["a"] & set(traffic.pids[asked:]), "it is sent requests again")

            assert a.cli("cordon").returncode == 0
            stats.until("a", "NOLB")
            traffic.moves_to(pids["b"])
            assert a.cli("stop").returncode == 0
            stats.until("a", "DOWN")
            traffic.goes_on(100)
        assert stats.of("a")["eresp"] == stats.of("b")["eresp"] == "0"
        with contextlib.closing(connect(address)) as last:
            last.request("GET", "/")
            assert last.getresponse().status == 200
        print(f"0 failed of {len(traffic.pids)}")


def test_an_agent_check_says_how_many_new_clients(tmp_path: Path) -> None:
    """No request fails: its weight is that of the workers that serve, none while it is cordoned and stops."""
    with contextlib.ExitStack() as started:
        *agents, port = (own_port() for _ in range(3))
        services = {
            name: _started(started, tmp_path / name, "--agent-bind", f"127.0.0.1:{number}", "--stop-delay", "2")
            for name, number in zip("ab", agents, strict=True)
        }
        a, pids = services["a"], _pids(services)
        backend = _backend("default-server check agent-check", services, agents)
        address, stats = started.enter_context(_haproxy(tmp_path, backend, port))
        with Traffic(address) as traffic:
            eventually(lambda: set(traffic.pids) >= pids["a"] | pids["b"], "both are sent requests")
            assert stats.of("a")["weight"] == "100"
            assert a.cli("cordon").returncode == 0
            eventually(lambda: stats.of("a")["weight"] == "0", "its weight is 0")
            traffic.moves_to(pids["b"])
            before = stats.of("a")["stot"]
            assert a.cli("supervisor", "reexec").returncode == 0
            assert a.cli("reload").returncode == 0
            traffic.goes_on(100)
            assert stats.of("a")["stot"] == before, "it is sent nothing"

            assert a.cli("uncordon").returncode == 0
            eventually(lambda: stats.of("a")["weight"] == "100", "it has its weight again")
            asked = len(traffic.pids)
            eventually(lambda: set(traffic.pids[asked:]) - pids["b"], "it is sent requests again")

            assert a.cli("stop").returncode == 0
            eventually(lambda: stats.of("a")["agent_status"] == "L4CON", "nobody answers its agent check")
            traffic.goes_on(100)
        assert stats.of("a")["eresp"] == stats.of("b")["eresp"] == "0"
        print(f"0 failed of {len(traffic.pids)}")
