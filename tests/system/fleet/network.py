"""A network of its own: a bridge in a network namespace, and hosts, which are namespaces, too, with a cable to it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.system.harness import DEADLINE

OUTSIDE = "10.0.0.254"
"""Where balancers and clients are."""


class Network:
    """10.0.0.0/24. ``pid``: a process that does nothing but keep the namespace, in which balancers and clients are."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._cables = 0
        self.do("ip", "link", "set", "lo", "up")
        self.do("ip", "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        self.do("ip", "address", "add", f"{OUTSIDE}/24", "dev", "bridge")
        self.do("ip", "link", "set", "bridge", "up")

    def connect(self, pid: int, address: str) -> None:
        """Give a process's namespace that address."""
        self._cables += 1
        ours = f"cable{self._cables}"
        self.do("ip", "link", "add", ours, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self.do("ip", "link", "set", ours, "master", "bridge", "up")
        within = ["nsenter", "-t", str(pid), "-n", "ip"]
        subprocess.run([*within, "address", "add", f"{address}/24", "dev", "eth0"], check=True, timeout=DEADLINE)
        subprocess.run([*within, "link", "set", "eth0", "up"], check=True, timeout=DEADLINE)

    def argv(self, *command: str) -> list[str]:
        """The command, run where balancers and clients are."""
        return ["nsenter", "-t", str(self.pid), "-n", *command]

    def do(self, *command: str, given: str = "") -> str:
        """Run it there, to its end; what it says."""
        told = {"capture_output": True, "text": True, "timeout": DEADLINE}
        done = subprocess.run(self.argv(*command), input=given, check=False, **told)  # type: ignore[call-overload]
        assert done.returncode == 0, (command, done.stderr)
        return str(done.stdout)


@contextmanager
def network() -> Iterator[Network]:
    """Have one."""
    keep = ["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"]
    with subprocess.Popen(keep, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield Network(process.pid)
        finally:
            process.kill()
