"""The image of deploy/container: what a container of it may do, is told and says."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.system.fleet.image import CONTEXT, Container, Image, container
from tests.system.fleet.network import Network, network
from tests.system.harness import DEADLINE, FULL, ROOT, eventually

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make namespaces"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    """A network."""
    with network() as net:
        yield net


@pytest.fixture
def running(net: Network, tmp_path: Path) -> Iterator[Container]:
    """One of a uid that the image does not know, as some platforms give it."""
    with container(Image(), net, tmp_path / "c", "10.0.0.1", user="1234567:0") as running:
        yield running


def test_it_serves_probes_and_says_so(running: Container, net: Network) -> None:
    """On both ports, to the health check, and in JSON; the file system is read-only but for where it is to write."""
    assert net.do("curl", "-sf", "http://10.0.0.1:8000/") == "ok\n"
    assert json.loads(net.do("curl", "-sf", "http://10.0.0.1:9464/readyz"))["ready"] is True
    assert json.loads(net.do("curl", "-sf", "http://10.0.0.1:9464/livez"))["live"] is True
    seen = json.loads(running.run("stillup", "status", "--json").stdout)
    assert seen["pid"] == 1
    assert seen["name"] == "app"
    (generation,) = seen["generations"]
    assert len(generation["workers"]) == len(os.sched_getaffinity(0))
    assert running.run("sh", "-c", "touch /srv/app/x || touch /tmp/x").returncode != 0
    assert running.run("stillup", "reload").returncode == 0
    running.stop()
    assert running.process.wait(DEADLINE) == 0
    assert [json.loads(line)["message"] for line in running.log.read_text().splitlines()][-1] == "stopped"


def test_compose_is_what_the_image_is_meant_for(net: Network, tmp_path: Path) -> None:
    """What its file sets is what it can be run with: the grace period is that of the rule."""
    (service,) = yaml.safe_load((CONTEXT / "compose.yaml").read_text())["services"].values()
    environment = service["environment"]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    rule = float(environment["STILLUP_STOP_DELAY"]) + float(environment["STILLUP_STOP_TIMEOUT"]) + 5
    assert service["stop_grace_period"] == f"{rule:.0f}s"
    with container(Image(), net, tmp_path / "c", "10.0.0.2", environment=environment) as running:
        seen = json.loads(running.run("stillup", "status", "--json", "--runtime-dir", "/dev/shm/app").stdout)
        assert (seen["name"], seen["stop_delay"]) == ("shop", 5)


def test_a_pod_is_what_the_image_is_meant_for(net: Network, tmp_path: Path) -> None:
    """What the Deployment sets is what it can be run with, as its user; its probes are answered."""
    pod = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    (spec,) = pod["containers"]
    told = {one["name"]: one["value"] for one in spec["env"]}
    user = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    ports = {port["name"]: port["containerPort"] for port in spec["ports"]}
    container_of = container(
        Image(), net, tmp_path / "c", "10.0.0.3", environment=told, user=user, arguments=spec["args"]
    )
    with container_of as running:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            get = spec[probe]["httpGet"]
            assert net.do("curl", "-sf", f"http://10.0.0.3:{ports[get['port']]}{get['path']}")
        assert net.do("curl", "-sf", f"http://10.0.0.3:{ports['http']}/") == "ok\n"
        running.stop()
        assert running.process.wait(DEADLINE) == 0
        assert "reloads when /etc/shop changes" in running.log.read_text()


def test_it_stops_within_the_time_that_docker_gives(running: Container, net: Network) -> None:
    """Ten seconds, with an answer that has no end: it is cut, and the exit code is 0."""
    argv = net.argv("curl", "-sN", "http://10.0.0.1:8000/ticks", "-o", str(running.log.with_name("ticks")))
    with subprocess.Popen(argv) as reading:
        ticks = running.log.with_name("ticks")
        eventually(lambda: ticks.exists() and ticks.read_text(), "it streams")
        begun = time.monotonic()
        running.stop()
        assert running.process.wait(DEADLINE) == 0
        assert time.monotonic() - begun < (10 if FULL else 30)  # as the machine is busy beside it
        reading.wait(DEADLINE)
