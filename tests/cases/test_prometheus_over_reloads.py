"""An app's own metrics in Prometheus' multiprocess mode, over reloads and a worker that is killed."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tests.system.harness import FULL, Service, eventually

RELOADS = 5 if FULL else 1
COUNTS = """
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess
asked = Counter("asked", "Requests")
workers = Gauge("workers", "Workers that live", multiprocess_mode="livesum")
workers.set(1)
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    body = b"ok"
    if scope["path"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        body = generate_latest(registry)
    else:
        asked.inc()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


def figures(service: Service) -> tuple[float, float]:
    """How many requests were asked, and how many workers are said to live."""
    text = service.get("/metrics")
    found = [re.search(rf"^{name} (\S+)$", text, re.MULTILINE) for name in ("asked_total", "workers")]
    asked, workers = (float(one[1]) if one else 0.0 for one in found)
    return asked, workers


def test_the_dead_are_not_counted(tmp_path: Path) -> None:
    """A gauge of living workers is that, whichever way the others ended; what the dead have counted stays counted."""
    (tmp_path / "metrics").mkdir()
    service = Service(tmp_path, environment={"PROMETHEUS_MULTIPROC_DIR": "metrics"})
    service.write(COUNTS)
    with service:
        for number in range(1, RELOADS + 1):
            service.get()
            assert service.client.reload(wait="drained").state == "done"
            eventually(lambda number=number: figures(service) == (number, 1), f"{number} asked, 1 lives")  # type: ignore[misc]
        (killed,) = service.workers()
        assert killed.pid is not None
        os.kill(killed.pid, signal.SIGKILL)
        eventually(lambda: [worker.pid for worker in service.workers()] not in ([], [killed.pid]), "another serves")
        eventually(lambda: figures(service) == (RELOADS, 1), "1 lives")
    assert not list((tmp_path / "metrics").glob("gauge_live*")), "the last of them, too"
