"""A service whose processes can be made to stand still at a phase, and that outlives its supervisor."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.control import Control
from benchmarks.processes import hold, until, workers
from tests.system.chaos import stop_points
from tests.system.harness import ROOT, Service
from tests.system.mutations import STANDS_STILL_EVERYWHERE, Mutation, mutated

WORKERS = 2


class Hit(Service):
    """``with`` starts it and ends it, its workers too, whoever started them: they are known by its name."""

    def __init__(self, folder: Path, changes: Sequence[Mutation] = ()) -> None:
        """Make a copy of stillup with the phases in it, and perhaps broken by more changes."""
        self.title = f"chaos-{secrets.token_hex(6)}"
        copy = mutated(folder, *STANDS_STILL_EVERYWHERE, *changes)["PYTHONPATH"]
        self._copy = Path(copy)
        shutil.copy(stop_points.__file__, self._copy / "chaos_stop_points.py")
        super().__init__(
            folder,
            "benchmarks.app:app",
            *("--name", self.title, "--no-access-log", "--health-path", "/healthz", "--orphan-timeout", "60"),
            workers=WORKERS,
            environment={"PYTHONPATH": f"{copy}:{ROOT}"},
        )
        self.control = Control(str(self.runtime))

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self.process.pid

    def family(self) -> list[psutil.Process]:
        """The workers."""
        return [psutil.Process(worker.pid) for worker in workers(self.title)]

    def __exit__(self, *error: object) -> None:
        """Stop, and find nothing left; after a failure, only end what is left."""
        try:
            if not any(error):
                super().__exit__()
                assert not self.family(), f"left behind: {self.family()}\n{self.log()}"
        finally:
            self._end()

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for worker in self.family():
            worker.kill()

    async def start_again(self, patience: float) -> None:
        """Start another supervisor, and wait until it serves.

        Raises:
            AssertionError, TimeoutError: it does not.
        """
        self._wait = False
        self.start()

        def serves(status: dict[str, Any]) -> bool:
            assert self.process.poll() is None, f"the next supervisor ended with {self.process.returncode}"
            return status.get("state") == "serving"

        await self.control.until(serves, patience, "another supervisor serves")

    def arm(self, phase: str) -> None:
        """Let the next process that comes to that phase stand still there."""
        (self._copy / stop_points.REACHED).unlink(missing_ok=True)
        new = self._copy / "arming"
        new.write_text(phase)
        new.rename(self._copy / stop_points.ARMED)

    async def reached(self, patience: float) -> tuple[int, list[int]]:
        """Wait until one stands still; its pid, and which of its descriptors it has given away.

        Raises:
            TimeoutError: none does.
        """
        await until((self._copy / stop_points.REACHED).exists, patience, "the phase is reached")
        said = json.loads((self._copy / stop_points.REACHED).read_text())
        with hold(said["pid"]) as grip:
            await until(grip.stands_still, patience, "it stands still")
        return said["pid"], said["given"]
