"""What HAProxy says of its servers (``show stat`` at its socket)."""

from __future__ import annotations

import csv
import socket
from pathlib import Path

from tests.system.harness import DEADLINE, eventually


class HaproxyStats:
    """Of the HAProxy whose ``stats.sock`` is in a folder."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / "stats.sock")

    def of(self, server: str) -> dict[str, str]:
        """Its figures, by their names."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE)
            sock.connect(self._path)
            sock.sendall(b"show stat\n")
            text = b"".join(iter(lambda: sock.recv(65536), b"")).decode().removeprefix("# ")
        return next(row for row in csv.DictReader(text.splitlines()) if row["svname"] == server)

    def until(self, server: str, status: str) -> None:
        """Wait until it takes a server for that."""
        eventually(lambda: self.of(server)["status"].startswith(status), f"{server} is {status}")
