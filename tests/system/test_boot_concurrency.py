"""No more workers boot at once than may, whatever they are started for: the app itself sees that it is alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.system.harness import APP, Service, eventually

ALONE = """
import os
os.close(os.open("booting", os.O_CREAT | os.O_EXCL))  # raises where another worker boots
import time
time.sleep(0.1)
os.unlink("booting")
"""


def test_one_boots_after_another(tmp_path: Path) -> None:
    """A start, a scaling, a reload, and deaths while that boots: each worker finds nobody else in its import."""
    service = Service(tmp_path, "main:app", "--workers", "2", "--boot-concurrency", "1")
    service.write(ALONE + APP)
    with service:
        assert service.cli("scale", "4").returncode == 0
        killed = [worker.pid for worker in service.workers()[:2]]
        reloads = service.client.reload(wait=None)
        assert reloads.workers_queued == 3
        for pid in killed:
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        assert service.settled(reloads.id).outcome == "succeeded"
        eventually(lambda: len(service.workers()) == 4, "four serve")
        assert "FileExistsError" not in service.log()
