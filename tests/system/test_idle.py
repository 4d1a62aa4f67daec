"""A service that serves nobody leaves the processors alone: its supervisor sleeps, but for reports and looks."""

from __future__ import annotations

import time
from pathlib import Path

from tests.system.harness import Service, eventually

SECONDS = 5.0
"""How long wake-ups are counted; at first there is something new to tell still, of the boot."""
MOST = 1.1
"""Of the event loop, a second. It is 0.6 to 0.8: two workers' reports, all looks at the same moment, and what comes of
that at the figures, each every 5 s. A worker that reported every second would add 0.8, and so would a look."""


def _wake_ups(pid: int) -> int:
    """How often a process's main thread has slept until now (``voluntary_ctxt_switches`` in proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/task/{pid}/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("voluntary")).split()[1])


def test_the_supervisor_hardly_wakes_up(tmp_path: Path) -> None:
    """Of a service with two workers."""
    service = Service(tmp_path, workers=2)
    service.write()
    with service:

        def is_quiet() -> bool:
            before = _wake_ups(service.process.pid)
            time.sleep(SECONDS)
            return (_wake_ups(service.process.pid) - before) / SECONDS < MOST

        eventually(is_quiet, "the supervisor of an idle service sleeps", deadline=18 * SECONDS)
