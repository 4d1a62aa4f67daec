"""A service whose supervisor is killed, and whose workers then wait for another one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.system.harness import ROOT, Service, eventually, forks_workers

HELD = """
import os, pathlib, time
me = f"{os.environ['STILLUP_GENERATION']}.{os.environ['STILLUP_WORKER']}"
while pathlib.Path(f"hold-{me}").exists():
    pathlib.Path(f"held-{me}").touch()
    time.sleep(0.02)
from tests.system.gated_app import app
"""
"""The gated app, whose import waits while there is a file such as ``hold-2.1``."""


class KillableService(Service):
    """A service whose supervisor is killed; whoever is left in the end is ended."""

    def __init__(self, folder: Path, *options: str, app: str = "main:app", path: str = "", **others: Any) -> None:
        environment = {"PYTHONPATH": f"{path}:{ROOT}" if path else str(ROOT)}
        options = ("--no-access-log", "--orphan-timeout", "60", *options)
        super().__init__(folder, app, *options, environment=environment, **others)
        self.write(HELD)

    def __exit__(self, *error: object) -> None:
        try:
            super().__exit__(*error)
        finally:
            left = self.processes()
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, 10)
        assert not left, f"left behind: {left}"

    def processes(self) -> list[psutil.Process]:
        """The workers, whoever is their parent."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                # Not by its name alone: another test's folder may be called the same.
                ours = process.environ().get("STILLUP_HANDOFF") == f"{self.runtime}/handoff.sock"
                if ours and "stillup.worker" in process.cmdline() and not forks_workers(process):
                    found.append(process)
        return found

    def pids(self) -> dict[str, int]:
        """Who serves."""
        return {worker.id: worker.pid for worker in self.workers() if worker.pid is not None}

    def die(self) -> None:
        """Let the supervisor die on the spot."""
        self.process.kill()
        self.process.wait()

    def change(self, *options: str) -> None:
        """Start it in another way from now on."""
        self.argv += options

    def rolled_out(self, number: int) -> set[int]:
        """Wait until that generation alone is there; its processes."""
        eventually(lambda: self.generations() == [number] and self.status().state == "serving", f"gen {number} alone")
        return set(self.pids().values())

    def record(self) -> Path:
        return self.runtime / "record.json"


Start = Callable[..., KillableService]
