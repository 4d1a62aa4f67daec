"""A service whose stillup.toml says where it listens, and what of its listeners can be seen from outside."""

from __future__ import annotations

import errno
import json
import socket
from pathlib import Path
from typing import Any

from tests.system.harness import eventually
from tests.system.killable_service import KillableService


class BoundService(KillableService):
    """The gated app, whose import waits while there is a file such as ``hold-2.1``."""

    def __init__(self, folder: Path, *options: str, workers: int = 1, **others: Any) -> None:
        # A busy machine may take longer for a test than the 5 s after which idle connections are closed else.
        super().__init__(folder, "--timeout-keep-alive", "120", *options, workers=workers, binds=(), **others)

    def say(self, *binds: str, **more: float | str) -> None:
        """Write the file anew."""
        lines = [f"bind = {json.dumps(binds)}", *(f"{key} = {json.dumps(value)}" for key, value in more.items())]
        (self.folder / "stillup.toml").write_text("\n".join(lines) + "\n")

    def listens(self) -> dict[str, str]:
        """What becomes of each listener, by its address."""
        return {one.address: one.state for one in self.status().listeners}

    def comes_to_listen(self, wanted: dict[str, str]) -> None:
        """Wait until these are all its listeners, and what becomes of them."""
        eventually(lambda: self.listens() == wanted, f"{wanted}, not {self.listens()}\n{self.log()}")

    def hold(self, worker: str) -> None:
        """Have the import of a worker to come wait."""
        (self.folder / f"hold-{worker}").touch()

    def release(self, worker: str) -> None:
        (self.folder / f"hold-{worker}").unlink()

    def boots(self, worker: str) -> None:
        """Wait until the import of a worker waits."""
        eventually((self.folder / f"held-{worker}").exists, f"{worker} boots\n{self.log()}")


_KEPT: list[socket.socket] = []
"""Bound to the ports that were given out, and listening on none: the kernel gives nobody else these."""


def free_port() -> str:
    """An address that nobody listens on, and that stays ours: who binds it has to say SO_REUSEADDR, as stillup does."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    _KEPT.append(sock)
    return f"127.0.0.1:{sock.getsockname()[1]}"


def refuses(address: str) -> bool:
    """Whether nobody can connect there."""
    if address.startswith("unix:"):
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(address.removeprefix("unix:")) in (errno.ECONNREFUSED, errno.ENOENT)
    host, _, port = address.rpartition(":")
    with socket.socket() as sock:
        return sock.connect_ex((host, int(port))) == errno.ECONNREFUSED


def inode(address: str) -> int:
    """Which socket listens on a port: its number in /proc/net/tcp, which no two have."""
    host, _, port = address.rpartition(":")
    where = f"{socket.inet_aton(host)[::-1].hex().upper()}:{int(port):04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:])
    (found,) = (int(row[9]) for row in rows if (row[1], row[3]) == (where, "0A"))
    return found
