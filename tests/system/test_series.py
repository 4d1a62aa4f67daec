"""``GET /v1/series``: what clients did to a real service stands there a few seconds later."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from stillup.wire.series_view import SeriesView
from tests.system.gated_service import reloaded
from tests.system.harness import APP, Service, connect, eventually

FAILS_AT_TIMES = APP.replace('"status": 200', '"status": 500 if scope["path"] == "/fails" else 200')


def _counted(seen: SeriesView) -> tuple[int, int]:
    """Requests and errors of all points."""
    requests = sum(one.requests * one.seconds for one in seen.points)
    return round(requests), round(sum(one.errors * one.seconds for one in seen.points))


def test_what_clients_did(tmp_path: Path) -> None:
    """Every request, those that failed, the cut-overs, and what the workers need."""
    service = Service(tmp_path, workers=2)
    service.write(FAILS_AT_TIMES)
    with service:
        for number in range(50):
            with closing(connect(service.address())) as connection:
                connection.request("GET", "/fails" if number % 10 == 0 else "/")
                assert connection.getresponse().status == (500 if number % 10 == 0 else 200)
        reloaded(service)
        eventually(lambda: all(worker.memory for worker in service.client.workers()), "all have reported")
        for _ in range(30):
            service.get("/")
        eventually(lambda: _counted(service.client.series()) == (80, 5), "all are in the series")
        seen = service.client.series()
        assert [one.generation for one in seen.cut_overs] == [1, 2]
        last = seen.points[-1]
        assert (last.generation, last.workers) == (2, 2)
        resident = sum(worker.memory for worker in service.client.workers())
        assert 0.5 * resident < last.memory < 2 * resident
        assert all(worker.cpu > 0 for worker in service.client.workers())
        assert [one.at for one in seen.points] == sorted(one.at for one in seen.points)
        status = service.client.status()
        assert status.uptime > 0
        assert status.cpu > 0
        assert status.memory > 10_000_000
