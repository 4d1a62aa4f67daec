"""What an app has started goes with its worker: when that is killed, when nobody was there to see it, and at a stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.system.harness import APP, Service, eventually, pids

STARTS = (
    """
import multiprocessing, os, time
def wait():
    time.sleep(600)
child = multiprocessing.get_context("fork").Process(target=wait, daemon=True)
child.start()
open(f"child-{os.getpid()}", "w").write(str(child.pid))
"""
    + APP
)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_children_of_workers(tmp_path: Path) -> None:
    """A killed worker's child ends; so does that of one that died without a supervisor; so do all at a stop."""
    service = Service(tmp_path, "main:app", "--orphan-timeout", "60", "--probation", "0", workers=2)
    service.write(STARTS)

    def children() -> dict[int, int]:
        return {pid: int((service.folder / f"child-{pid}").read_text()) for pid in pids(service).values()}

    with service:
        before = children()
        assert all(map(lives, before.values()))
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: not lives(before[victim]), "the killed worker's child has ended")
        eventually(lambda: len(pids(service)) == 2 and victim not in pids(service).values(), "its slot is filled")
        before = children()
        victim = min(before)
        service.process.kill()
        service.process.wait()
        os.kill(victim, signal.SIGKILL)
        service.start()
        eventually(lambda: not lives(before[victim]), "the child of who died meanwhile has ended")
        eventually(lambda: len(pids(service)) == 2 and victim not in pids(service).values(), "its slot is filled")
        before = children()
        assert all(map(lives, before.values()))
    eventually(lambda: not any(map(lives, before.values())), "nothing is left after a stop")
