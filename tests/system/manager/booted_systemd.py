"""A real systemd, booted for the tests in namespaces of its own (``boot.sh``)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.system.harness import ROOT

BOOT = Path(__file__).with_name("boot.sh")
SHARED = "/shared"
"""Where the shared directory is, inside."""


def why_not() -> str:
    """Why no systemd can be booted here; empty if one can."""
    if os.geteuid() != 0:
        return "needs root to make namespaces"
    missing = [tool for tool in ("unshare", "nsenter", "setpriv", "ip") if shutil.which(tool) is None]
    if not Path("/lib/systemd/systemd").exists():
        missing.append("/lib/systemd/systemd")
    if missing:
        return f"not here: {', '.join(missing)}"
    kinds = Path("/proc/filesystems").read_text(encoding="ascii").split()
    return "" if {"overlay", "cgroup2"} <= set(kinds) else "the kernel has no overlayfs or no cgroup2"


class Booted:
    """One systemd; what is in ``shared`` is seen inside as /shared."""

    def __init__(self, layer: Path | None = None) -> None:
        """Have this machine's systemd, or the one of a layer (``layer.sh``)."""
        self._layer = layer
        self.state = Path(tempfile.mkdtemp(prefix="booted-", dir="/var/tmp"))
        self.shared = self.state / "shared"
        self.shared.mkdir(mode=0o755)

    def __enter__(self) -> Self:
        # What the tests run with may be where systemd has a directory of its own.
        seen = {str(ROOT), sys.prefix, sys.base_prefix}
        environment = {**os.environ, "SHARED": str(self.shared), "SEEN": " ".join(sorted(seen))}
        environment["LAYERS"] = str(self._layer or "")
        try:
            self._boot("up", environment)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._boot("down", os.environ)
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.state)], check=True)

    def _boot(self, what: str, environment: Mapping[str, str]) -> None:
        # Not through pipes: what is booted would keep them open.
        with (self.state / "boot.log").open("ab") as log:
            argv = ["bash", str(BOOT), what, str(self.state)]
            done = subprocess.run(argv, env=dict(environment), stdout=log, stderr=log, timeout=100, check=False)
        assert done.returncode == 0, (self.state / "boot.log").read_text()

    @property
    def pid(self) -> int:
        """Of that systemd, as seen from here."""
        return int((self.state / "pid").read_text())

    def argv(self, *command: str) -> list[str]:
        return ["bash", str(BOOT), "exec", str(self.state), *command]

    def run(self, *command: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        return subprocess.run(self.argv(*command), capture_output=True, text=True, timeout=timeout, check=False)

    def systemctl(self, *words: str) -> str:
        """What systemctl prints; it must succeed."""
        done = self.run("systemctl", *words)
        assert done.returncode == 0, f"systemctl {' '.join(words)}: {done.stderr}\n{self.journal()}"
        return done.stdout

    def journal(self, unit: str = "") -> str:
        """What was logged, of one unit or of all."""
        return self.run("journalctl", "--no-pager", "-o", "cat", *(["-u", unit] if unit else ["-n", "60"])).stdout

    def entries(self, *matches: str) -> list[dict[str, str]]:
        """What the journal has with those fields.

        Of a message that journald reads when its process has ended it knows the pid, but no more of it than the sender
        says: neither its unit nor its invocation (systemd.journal-fields(7), the trusted ones).
        """
        done = self.run("journalctl", "--no-pager", "-o", "json", *matches)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def write(self, name: str, text: str) -> None:
        """Write a unit or a drop-in; systemd reads it at its next daemon-reload."""
        path = Path(f"/proc/{self.pid}/root/etc/systemd/system/{name}")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
