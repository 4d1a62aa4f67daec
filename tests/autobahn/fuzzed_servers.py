"""What is fuzzed: uvicorn, and stillup while it is reloaded, with the same app."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from stillup.errors import StillupError
from tests.system.bound_service import free_port
from tests.system.harness import DEADLINE, ROOT, Service, connect, eventually

APP = "tests.autobahn.resumable_echo:app"
WEBSOCKETS = ("--ws", "websockets-sansio")
"""The implementation whose sessions are handed over."""


class ReloadFailed(Exception):
    """The service did not reload."""


def raised(log: Path) -> set[str]:
    """The kinds of exceptions of which a log has tracebacks."""
    lines = iter([line.removeprefix("  | ") for line in log.read_text(errors="replace").splitlines()])
    kinds = set()
    for line in lines:
        if line.startswith("Traceback"):
            kinds.add(next((line for line in lines if not line.startswith(" ")), "").partition(":")[0])
    return kinds


@contextmanager
def uvicorn_served(folder: Path) -> Iterator[str]:
    """Uvicorn, with one process; its address for WebSockets. Its output is in the folder's file ``log``."""
    address = free_port()
    host, _, port = address.rpartition(":")
    argv = [sys.executable, "-m", "uvicorn", APP, "--host", host, "--port", port, *WEBSOCKETS]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*argv, "--no-access-log"], cwd=ROOT, stdout=log, stderr=log)

    def serves() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            connection = connect(address)
            connection.request("GET", "/healthz")
            status = connection.getresponse().status
            connection.close()
        except OSError:
            return False
        return status == 200

    try:
        eventually(serves, "uvicorn serves")
        yield f"ws://{address}"
    finally:
        process.terminate()
        process.wait(DEADLINE)


class ReloadedEcho(Service):
    """The service, which is reloaded every so many seconds from its start to its end.

    ``reload_counts`` is a file that says how many reloads have begun, and how many of them have ended: the workers from
    before have left by then. With ``forgetful`` no session goes on in the next worker: each ends with 1012.
    """

    tracebacks_expected = True
    """uvicorn logs one for each text that is no UTF-8."""

    def __init__(self, folder: Path, *, workers: int = 1, every: float = 2.0, forgetful: bool = False) -> None:
        options = ("--app-dir", str(ROOT), "--no-access-log", "--health-path", "/healthz", *WEBSOCKETS)
        super().__init__(folder, APP, *options, workers=workers, environment={"FORGETFUL": "1"} if forgetful else None)
        self.reload_counts = folder / "reload_counts"
        self.reloads = 0
        self._every = every
        self._end = threading.Event()
        self._failed: StillupError | None = None
        self._thread = threading.Thread(target=self._reloads)

    def __enter__(self) -> Self:
        super().__enter__()
        self._count(0, 0)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._end.set()
        self._thread.join()
        super().__exit__(*raised)
        if self._failed is not None:
            raise ReloadFailed(f"reload {self.reloads + 1}: {self._failed}\n{self.log()[-4000:]}") from self._failed

    def url(self) -> str:
        """Its address for WebSockets."""
        return f"ws://{self.address()}"

    def _reloads(self) -> None:
        began = time.monotonic()
        while not self._end.wait(max(0.0, began + self._every - time.monotonic())):
            began = time.monotonic()
            self._count(self.reloads + 1, self.reloads)
            try:
                self.client.reload(wait="drained", timeout=DEADLINE)
            except StillupError as error:
                self._failed = error
                return
            self.reloads += 1
            self._count(self.reloads, self.reloads)

    def _count(self, begun: int, ended: int) -> None:
        new = self.reload_counts.with_suffix(".new")
        new.write_text(f"{begun} {ended}")
        new.rename(self.reload_counts)
