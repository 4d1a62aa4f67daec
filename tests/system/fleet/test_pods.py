"""Containers of deploy/container as engines stop them: before HAProxy, and in Kubernetes' order."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.load import Mix, Report
from tests.system.fleet.balancer import ADDRESS, HAPROXY, HTTPCHK, haproxy
from tests.system.fleet.clients import under_load
from tests.system.fleet.image import Container, Image, container
from tests.system.fleet.network import Network, network
from tests.system.harness import DEADLINE, FULL, eventually
from tests.system.manager.booted_systemd import why_not

pytestmark = [
    pytest.mark.skipif(not FULL, reason="takes minutes: make prove-fleet"),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(600),
]

MIX = Mix(fresh=6, keepalive=10, think=0.01)
SERVICE = "10.96.0.1"
"""Of Kubernetes' kind: an address of nobody, which each new connection to it has replaced by that of a pod."""
PROPAGATION = (0.0, 0.5, 1.0, 2.0)
"""Seconds after the SIGTERM that nodes go on sending new connections, by turns."""
REQUESTS = 20_000
ENDPOINTS = """
table ip pods {{}}
flush table ip pods
table ip pods {{
  chain out {{
    type nat hook output priority -100; policy accept;
    ip daddr {service} tcp dport 80 dnat to numgen random mod {count} map {{ {places} }} : 8000
  }}
}}
"""


class Pods:
    """Those that are started and stopped in a network; ``endpoints`` are who is sent connections."""

    def __init__(self, network: Network, folder: Path, stack: contextlib.ExitStack) -> None:
        self.network = network
        self._folder = folder
        self._stack = stack
        self._number = 0
        self.running: dict[str, Container] = {}

    def start(self, **environment: str) -> str:
        """Start one, and wait until it is ready; its address."""
        self._number += 1
        address = f"10.0.0.{self._number}"
        folder = self._folder / f"pod{self._number}"
        told = {"WEB_CONCURRENCY": "2", **environment}
        pod = container(Image(), self.network, folder, address, environment=told)
        self.running[address] = self._stack.enter_context(pod)
        return address

    def endpoints(self, *addresses: str) -> None:
        """Have new connections to SERVICE go to these, as kube-proxy's rules do; what is open stays where it is."""
        places = ", ".join(f"{number} : {address}" for number, address in enumerate(addresses))
        rules = ENDPOINTS.format(service=SERVICE, count=len(addresses), places=places)
        self.network.do("nft", "-f", "-", given=rules)

    def under_load(self, address: str, happens: Callable[[], None], requests: int = 0) -> Report:
        """Let it happen, again until there were so many requests; what clients noticed."""
        return under_load(self.network, address, MIX, happens, requests=requests)[0]


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    """None of them yet."""
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network())
        net.do("ip", "route", "add", f"{SERVICE}/32", "dev", "bridge")
        yield Pods(net, tmp_path, stack)


@pytest.mark.skipif(HAPROXY is None, reason="needs HAProxy")
def test_docker_stop_behind_haproxy(pods: Pods, tmp_path: Path) -> None:
    """With answers that have no end: exit 0 within 10 s, and no other request fails."""
    a, *_ = (pods.start(STILLUP_CORDON_STATUS="404") for _ in range(3))
    reading = pods.network.argv("curl", "-sN", f"http://{a}:8000/ticks", "-o", str(tmp_path / "ticks"))
    with haproxy(pods.network, tmp_path / "lb", HTTPCHK), subprocess.Popen(reading) as reader:
        eventually((tmp_path / "ticks").exists, "it streams")
        pod = pods.running[a]

        def stop() -> None:
            begun = time.monotonic()
            pod.stop()
            assert pod.process.wait(DEADLINE) == 0
            assert time.monotonic() - begun < 10

        report = pods.under_load(ADDRESS, stop)
        assert report.failed == 0, report
        reader.wait(DEADLINE)


@pytest.mark.skipif(shutil.which("nft", path="/usr/sbin:/sbin") is None, reason="needs nft")
@pytest.mark.parametrize("delay", [5, 0])
def test_kubernetes_order_without_a_prestop(pods: Pods, delay: int) -> None:
    """SIGTERM comes at once, and new connections until the endpoints have changed everywhere: none is refused.

    Without a delay some are, so that this would be noticed.
    """
    serving = [pods.start(STILLUP_STOP_DELAY=str(delay)) for _ in range(2)]
    pods.endpoints(*serving)
    turns = iter(range(1000))

    def replace() -> None:
        serving.append(pods.start(STILLUP_STOP_DELAY=str(delay)))
        pods.endpoints(*serving)
        old = pods.running[serving.pop(0)]
        old.stop()
        time.sleep(PROPAGATION[next(turns) % len(PROPAGATION)])  # what is tried: so late is the network's word
        pods.endpoints(*serving)
        assert old.process.wait(DEADLINE) == 0

    report = pods.under_load(f"{SERVICE}:80", replace, REQUESTS)
    assert (report.failed == 0) == (delay > 0), report
    if delay:
        assert report.requests >= REQUESTS
