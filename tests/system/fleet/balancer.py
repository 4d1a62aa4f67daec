"""A real HAProxy before the hosts, with the backends of docs/deploy.md; and a real nginx."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.system.fleet.network import OUTSIDE, Network
from tests.system.haproxy_stats import HaproxyStats
from tests.system.harness import DEADLINE, ROOT, eventually

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
ADDRESS = f"{OUTSIDE}:80"
HTTPCHK, AGENT = "option httpchk", "default-server check agent-check"
"""How the two backends of the page begin."""

CONFIGURATION = """
global
    stats socket {folder}/stats.sock
defaults
    mode {mode}
    timeout connect 2s
    timeout check 1s
    timeout client 60s
    timeout server 60s
    retries 0
frontend www
    bind {address}
    default_backend shop
{backend}
"""


@contextlib.contextmanager
def haproxy(network: Network, folder: Path, begins: str, mode: str = "http") -> Iterator[HaproxyStats]:
    """Have it serve ADDRESS; ``begins``: which of the page's backends. Retries 0: what a host refuses is lost."""
    page = (ROOT / "docs" / "deploy.md").read_text()
    (backend,) = re.findall(rf"^```haproxy\n(backend shop\n    {begins}.*?)^```", page, re.MULTILINE | re.DOTALL)
    if mode == "tcp":
        backend = backend.replace("    http-check disable-on-404\n", "")
    folder.mkdir()
    (folder / "haproxy.cfg").write_text(
        CONFIGURATION.format(folder=folder, address=ADDRESS, backend=backend, mode=mode)
    )
    with (folder / "log").open("wb") as log:
        argv = network.argv(str(HAPROXY), "-db", "-f", str(folder / "haproxy.cfg"))
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        balancer = HaproxyStats(folder)
        eventually(lambda: process.poll() is not None or (folder / "stats.sock").exists(), "HAProxy runs")
        for server in "abc":
            balancer.until(server, "UP")
        yield balancer
    finally:
        process.terminate()
        process.wait(DEADLINE)
        print((folder / "log").read_text())


@contextlib.contextmanager
def nginx(network: Network, folder: Path) -> Iterator[None]:
    """Have nginx serve ADDRESS, as docs/fleet.md has it."""
    page = (ROOT / "docs" / "fleet.md").read_text()
    (site,) = re.findall(r"^```nginx\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    folder.mkdir()
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{site}}}\n"
    )
    argv = network.argv(str(NGINX), "-e", str(folder / "log"), "-p", str(folder), "-c", str(folder / "nginx.conf"))
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: process.poll() is not None or (folder / "pid").exists(), "nginx runs")
        yield
    finally:
        process.terminate()
        process.wait(DEADLINE)
        print((folder / "log").read_text())
