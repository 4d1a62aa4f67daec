"""deploy/ansible/release.yml by a real Ansible and a real sshd on each of three hosts, under load behind HAProxy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.fleet.balancer import HAPROXY, HTTPCHK, haproxy
from tests.system.fleet.hosts import Fleet, fleet
from tests.system.harness import FULL, ROOT, STILLUP, eventually
from tests.system.manager.booted_systemd import SHARED, why_not
from tests.system.sshd import SSHD

ANSIBLE = shutil.which("ansible-playbook")
pytestmark = [
    pytest.mark.skipif(not FULL, reason="takes minutes: make prove-fleet"),
    pytest.mark.skipif(bool(why_not()) or not (HAPROXY and ANSIBLE and SSHD), reason="needs HAProxy, Ansible, sshd"),
    pytest.mark.timeout(600),
]

APP = """
import os, socket, threading
{trouble}
from benchmarks.app import app
"""
BAD_ON_B = "assert socket.gethostname() != 'b'"
DIES_ON_A = "socket.gethostname() == 'a' and threading.Timer(1, os._exit, [1]).start()"
PROBATION = 4


class Operator:
    """Who releases over the hosts."""

    def __init__(self, hosts: Fleet, folder: Path) -> None:
        self._hosts = hosts
        self._folder = folder

    def prepare(self) -> None:
        """Keys, an inventory, and an sshd on each host."""
        (self._folder / "key").parent.mkdir(exist_ok=True)
        for name in ("key", "host"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._folder / name], check=True)
        inventory = ["[shop]"]
        for number, (name, shop) in enumerate(self._hosts.shops.items(), 1):
            inventory.append(f"{name} ansible_host=10.0.0.{number}")
            shared = shop.booted.shared
            for file in ("host", "key.pub"):
                shutil.copy(self._folder / file, shared / file)
            shop.booted.run("hostname", name)
            shop.booted.run("ln", "-sfn", STILLUP, "/usr/local/bin/stillup")
            shop.booted.run("mkdir", "-p", "/run/sshd")
            options = [
                "HostKey={0}/host",
                "AuthorizedKeysFile={0}/key.pub",
                "StrictModes=no",
                "PidFile=none",
                "UsePAM=no",
            ]
            words = [word for option in options for word in ("-o", option.format(SHARED))]
            done = shop.booted.run("systemd-run", "--unit=sshd-of-a-test", str(SSHD), "-D", "-f", "/dev/null", *words)
            assert done.returncode == 0, done
        (self._folder / "hosts").write_text("\n".join(inventory) + "\n")

    def release(self, number: int, trouble: str = "") -> tuple[int, dict[str, dict[str, int]], str]:
        """Release it: Ansible's exit code, its figures for each host, and all that it said."""
        source = self._folder / "build" / str(number)
        source.mkdir(parents=True, exist_ok=True)
        (source / "main.py").write_text(APP.format(trouble=trouble))
        ssh = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        environment = {
            **os.environ,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCAL_TEMP": str(self._folder / "temp"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._folder / "cp"),
            "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
            "ANSIBLE_PRIVATE_KEY_FILE": str(self._folder / "key"),
            "ANSIBLE_REMOTE_USER": "root",
            "ANSIBLE_SSH_ARGS": f"-C -o ControlMaster=auto -o ControlPersist=60s {ssh}",
        }
        words = ["-i", str(self._folder / "hosts"), "-e", f"release={number}", "-e", f"source={source}"]
        argv = self._hosts.network.argv(str(ANSIBLE), *words, str(ROOT / "deploy" / "ansible" / "release.yml"))
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=300, check=False)
        recap = re.findall(r"^(\w+) +: (.*changed=.*)$", done.stdout, re.MULTILINE)
        figures = {host: {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", said)} for host, said in recap}
        return done.returncode, figures, done.stdout + done.stderr


@pytest.fixture(scope="module")
def hosts() -> Iterator[Fleet]:
    """Three whose service is in releases/1."""
    with fleet(probation=PROBATION, prepare=_first_release, app="main:app", directory="/srv/shop/current") as hosts:
        yield hosts


def _first_release(root: Path) -> None:
    first = root / "srv" / "shop" / "releases" / "1"
    first.mkdir(parents=True)
    (first / "main.py").write_text(APP.format(trouble=""))
    (root / "srv" / "shop" / "current").symlink_to("releases/1")


def releases(hosts: Fleet) -> list[str]:
    """What serves on each host, and where its link leads: both have to be the same."""
    found = []
    for shop in hosts.shops.values():
        seen = json.loads(shop.cli("status", "--json"))
        serving = [one["release"] for one in seen["generations"] if one["state"] == "serving"]
        link = shop.booted.run("readlink", "/srv/shop/current").stdout.strip()
        assert serving == [link], (serving, link)
        found.append(link)
    return found


def test_releases(hosts: Fleet, tmp_path: Path) -> None:
    """A good one, again; one that is bad on the second host, one that dies on the first."""
    folder = Path(f"/var/tmp/ansible-{os.getpid()}")  # ssh's sockets have short paths
    folder.mkdir()
    operator = Operator(hosts, folder)
    try:
        operator.prepare()

        def release() -> None:
            code, stats, said = operator.release(2)
            assert code == 0, said
            assert all(host["changed"] >= 3 for host in stats.values()), said
            assert releases(hosts) == ["releases/2"] * 3

            code, stats, said = operator.release(2)
            assert (code, {host["changed"] for host in stats.values()}) == (0, {0}), said

            code, stats, said = operator.release(3, BAD_ON_B)
            assert (code, sorted(stats)) == (2, ["a", "b"]), said
            assert "was taken back on a" in said
            assert releases(hosts) == ["releases/2"] * 3

        def die() -> None:
            code, stats, said = operator.release(4, DIES_ON_A)
            assert (code, sorted(stats)) == (2, ["a"]), said
            assert "was taken back on no other host" in said
            eventually(lambda: releases(hosts) == ["releases/2"] * 3, "what served serves")

        with haproxy(hosts.network, tmp_path / "lb", HTTPCHK):
            report = hosts.under_load(release)
            assert report.failed == 0, report
            hosts.under_load(die)  # what a worker holds when it dies is lost
    finally:
        shutil.rmtree(folder)
