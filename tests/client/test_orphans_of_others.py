"""A record in a directory of another user's says which processes are orphans: whatever it says costs little."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillup.client import orphans
from stillup.host import processes
from stillup.host.processes import boot_id
from stillup.wire.runtime_paths import RECORD
from tests.system.other_user import being, open_folder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")

EVE = 12345
EXAMPLE = Path(__file__).parents[1] / "wire" / "records" / "2.json"


@pytest.fixture
def hers() -> Iterator[Path]:
    """A runtime directory of another user's, and no supervisor in it."""
    with open_folder() as folder:
        directory = folder / "shop"
        directory.mkdir(0o755)
        os.chown(directory, EVE, EVE)
        yield directory


@contextlib.contextmanager
def process() -> Iterator[int]:
    """The pid of a process of that user's."""
    words = [sys.executable, "-c", "import os; os.setuid(12345); print(flush=True); import time; time.sleep(60)"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield child.pid
        finally:
            child.kill()


def record(pid: int, workers: int) -> dict[str, Any]:
    """One that names a process as so many workers."""
    found: dict[str, Any] = json.loads(EXAMPLE.read_bytes())
    found["boot"] = boot_id()
    fleet = found["fleet"]
    for worker in fleet["workers"].values():
        worker |= {"pid": pid, "started": processes.started(pid)}
    last = fleet["workers"][max(fleet["workers"], key=int)]
    for _ in range(workers - len(fleet["workers"])):
        fleet["last_worker"] += 1
        fleet["workers"][str(fleet["last_worker"])] = {**last, "serial": fleet["last_worker"]}
    return found


def write(directory: Path, said: dict[str, Any], more: int = 0) -> None:
    path = directory / RECORD
    path.write_bytes(json.dumps(said).encode() + b" " * more)
    os.chown(path, EVE, EVE)


def test_a_large_record_is_not_read(hers: Path) -> None:
    """Of another user's no more is read than any service has; root's own, and the asker's, is read as ever."""
    with process() as pid:
        for more, are_found in ((0, True), (orphans.MOST_OF_OTHERS, False)):
            write(hers, record(pid, 1), more)
            with orphans.orphans(str(hers)) as left:
                assert bool(left) is are_found
        with being(EVE), orphans.orphans(str(hers)) as left:
            assert left


def test_a_record_that_names_more_than_can_be_held(hers: Path) -> None:
    """Each that it names is held by a descriptor: so many as there is room are known."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with process() as pid:
        write(hers, record(pid, 400))
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
        try:
            with orphans.orphans(str(hers)) as left:
                assert 0 < len(left) < 128
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
