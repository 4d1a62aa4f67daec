"""A thread of the app's that is no daemon keeps a drained worker's process, and somebody wonders why."""

from __future__ import annotations

from pathlib import Path

from stillup.wire.worker_event_types import WorkerHeldUp
from tests.system.harness import APP, Service, eventually

POLLS = """
import pathlib
import threading
import time


def poll():
    while not pathlib.Path("enough").exists():
        time.sleep(0.05)


threading.Thread(target=poll, name="poll the queue").start()
"""


def test_the_thread_is_named(tmp_path: Path) -> None:
    """The worker's log, its figures and the supervisor's log name it, and where it is; when it ends, all is done."""
    service = Service(tmp_path, "main:app")
    service.write(POLLS + APP)
    with service:
        assert service.reload().returncode == 0
        held = eventually(
            lambda: [one for one in service.client.events() if isinstance(one, WorkerHeldUp)], "the worker is held up"
        )
        assert held[0].worker == "1.1"
        (drains,) = service.workers("draining")
        assert drains.threads.startswith("poll the queue (main.py:")
        for who in ("has finished, and waits for threads of its app", "kept by threads of the app that are no daemons"):
            eventually(lambda who=who: f"{who}: poll the queue (main.py:" in service.log(), who)  # type: ignore[misc]
        (tmp_path / "enough").touch()
        eventually(lambda: not service.workers("draining"), "the old worker has ended")
