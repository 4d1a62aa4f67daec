"""A service that has a program run around each rollout; a test says when that ends, and it says if it is not alone."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from stillup.wire.api_shapes import RolloutView
from stillup.wire.hook_views import HookView
from tests.system.harness import DEADLINE, STILLUP, eventually
from tests.system.killable_service import KillableService

PROGRAM = """
import fcntl, os, pathlib, sys, time
word = sys.argv[1]
alone = os.open("alone", os.O_RDWR | os.O_CREAT)
try:
    fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    pathlib.Path("two-at-once").touch()
with open("begun", "a") as file:
    file.write(f"{word} {os.getpid()} {os.environ['STILLUP_GENERATION']}\\n")
print(f"{word} has begun", flush=True)
while not pathlib.Path(f"{word}-may-end").exists():
    time.sleep(0.02)
print(f"{word} ends", flush=True)
sys.exit(int(pathlib.Path(f"{word}-may-end").read_text() or 0))
"""
"""Notes that it has begun in a file of the release's directory, and ends when there is another file, as that says."""


class HookedService(KillableService):
    """Its hooks are what its configuration file says."""

    def __init__(self, folder: Path, *options: str, **others: Any) -> None:
        super().__init__(folder, *options, **others)
        (folder / "program.py").write_text(PROGRAM)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        alive = [pid for _, pid, _ in self.begun() if not is_gone(pid)]
        for pid in alive:
            psutil.Process(pid).kill()
        assert not alive, f"hooks left behind: {alive}"
        assert (self.folder / "two-at-once").exists() is self.ran_beside, "a hook ran beside another, or did not"

    ran_beside = False
    """Whether a hook is to run beside another."""

    def configure(self, before: Sequence[str] = (), after: Sequence[str] = (), **keys: float) -> None:
        """Write the file; the next reload reads it."""
        lines = [f"{key.replace('_', '-')} = {value}" for key, value in keys.items()]
        lines.append("[hooks]")
        lines += [
            f"{kind} = {json.dumps(list(words))}" for kind, words in (("before", before), ("after", after)) if words
        ]
        (self.folder / "stillup.toml").write_text("\n".join(lines) + "\n")

    def begun(self) -> list[tuple[str, int, int]]:
        """Of each run of the program that has begun: its word, pid and generation."""
        file = self.folder / "begun"
        rows = [row.split() for row in file.read_text().splitlines()] if file.exists() else []
        return [(word, int(pid), int(generation)) for word, pid, generation in rows]

    def until_begun(self, times: int) -> int:
        """Wait until the program has begun so often; the last one's pid."""
        return eventually(lambda: self.begun()[times - 1 :], f"hook {times} has begun\n{self.log()}")[0][1]

    def let_end(self, word: str, code: int = 0) -> None:
        """Have the program end, with that exit code."""
        told = self.folder / f"{word}-is-told"  # who looks for the other name may do so between two steps of ours
        told.write_text(str(code))
        told.rename(self.folder / f"{word}-may-end")

    def hold(self, word: str) -> None:
        (self.folder / f"{word}-may-end").unlink()

    def hooks(self, rollout: int) -> list[HookView]:
        return self.client.rollout(rollout).hooks

    def asked(self) -> RolloutView:
        """Ask for a reload, and wait for nothing."""
        return self.client.reload()

    def events(self) -> list[dict[str, Any]]:
        """All that there are."""
        return [json.loads(line) for line in self.client.event_lines(0)]

    def events_of(self, kind: str) -> list[dict[str, Any]]:
        """Those of a kind."""
        return [event for event in self.events() if event["kind"] == kind]

    def command(self, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Another command with the words of ``run``, in the same place."""
        argv = [self.argv[0], name, *self.argv[2:], *options]
        told: dict[str, Any] = {"cwd": self.folder, "env": self._environment, "timeout": DEADLINE}
        return subprocess.run(argv, capture_output=True, text=True, check=False, **told)


def program(word: str) -> tuple[str, ...]:
    """The words of the program above."""
    return ("python", "program.py", word)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Command:
    """A command of the command line that runs beside the test."""

    def __init__(self, service: HookedService, *words: str) -> None:
        self._argv = [STILLUP, *words, "--runtime-dir", str(service.runtime)]
        self._done: list[subprocess.CompletedProcess[str]] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self._done.append(
            subprocess.run(self._argv, capture_output=True, text=True, timeout=DEADLINE, env=environment, check=False)
        )

    def ended(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end."""
        self._thread.join()
        return self._done[0]


Hooked = Callable[..., HookedService]
