"""A PostgreSQL of one's own, which takes few connections; it is Debian's package, if that is installed."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system.harness import DEADLINE, eventually
from tests.system.rolling.postgres_app import PostgresConnection, PostgresError

RESERVED = 3
"""Connections that are kept for superusers (superuser_reserved_connections)."""


def program(name: str) -> str | None:
    """Where one of its programs is: not all are in the PATH of a Debian."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(installed[-1]) if installed else None)


@dataclass(frozen=True)
class PostgresServer:
    """One that runs."""

    folder: Path

    @property
    def socket(self) -> str:
        """The path of its socket."""
        return f"{self.folder}/.s.PGSQL.5432"

    @property
    def refused(self) -> list[str]:
        """What it has written of connections that it refused."""
        return [line for line in (self.folder / "log").read_text().splitlines() if "FATAL" in line]

    def is_up(self) -> bool:
        """Whether it takes connections."""
        try:
            self.ask("select 1")
        except (OSError, PostgresError, asyncio.IncompleteReadError):
            return False
        return True

    def ask(self, query: str) -> list[str]:
        """Run a query as superuser."""

        async def run() -> list[str]:
            connection = await PostgresConnection.open(self.socket, "postgres")
            try:
                return await connection.ask(query)
            finally:
                await connection.close()

        return asyncio.run(run())


@contextmanager
def postgres(connections: int) -> Iterator[PostgresServer]:
    """A server with that many connections, for user ``app`` and all others; it is not run by root, which it refuses."""
    initdb, server = program("initdb"), program("postgres")
    assert initdb is not None
    assert server is not None
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        if user is not None:
            shutil.chown(folder, user)
        data = str(folder / "data")
        made = [initdb, "--username=postgres", "--auth=trust", "--no-sync", "-D", data]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd=folder, user=user, timeout=DEADLINE)
        settings = {"max_connections": connections, "superuser_reserved_connections": RESERVED, "fsync": "off"}
        settings |= {"listen_addresses": "", "unix_socket_directories": directory, "shared_buffers": "16MB"}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([server, "-D", data, *words], stderr=log, cwd=folder, user=user)
        running = PostgresServer(folder)
        try:
            eventually(running.is_up, "postgres takes connections")
            running.ask("create role app login")
            (folder / "log").write_text("")  # of its start
            yield running
        finally:
            process.terminate()
            process.wait(DEADLINE)
