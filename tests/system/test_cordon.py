"""A host that is taken out of a balancer and serves on: `stillup cordon`."""

from __future__ import annotations

import http.client
import json
import signal
from contextlib import closing
from pathlib import Path

from tests.system.harness import Service, connect, eventually


def _asked(service: Service) -> tuple[http.client.HTTPResponse, str]:
    """The answer to a request, and whose it is."""
    with closing(connect(service.address())) as connection:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response, response.read().decode()


def _says_close(service: Service) -> bool:
    response, _ = _asked(service)
    assert response.status == 200
    return response.getheader("connection") == "close"


def _probe(service: Service, path: str) -> tuple[int, dict[str, object]]:
    with closing(connect(f"unix:{service.runtime}/control.sock")) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def test_a_cordoned_service_serves_on(tmp_path: Path) -> None:
    """Readiness fails and answers say close, over a reload, a kill and a re-exec, until it is uncordoned."""
    service = Service(tmp_path, "main:app", "--cordon-status", "404")
    service.write()
    with service:
        assert not _says_close(service)
        done = service.cli("cordon", "--json")
        assert (done.returncode, json.loads(done.stdout)["changed"]) == (0, True)
        status, problem = _probe(service, "/readyz")
        assert (status, problem["status"], problem["type"]) == (404, 404, "urn:stillup:problem:cordoned")
        assert _probe(service, "/livez")[0] == 200
        eventually(lambda: _says_close(service), "its worker is told")
        assert "nothing changed" in service.cli("cordon").stdout
        assert "cordoned  for" in service.cli("status").stdout
        service.client.reload(wait="drained")
        assert service.generations() == [2]
        assert _says_close(service), "a worker is told with the order to accept"

        service.signal(signal.SIGKILL)
        service.process.wait()
        service.start()
        assert _probe(service, "/readyz")[0] == 404
        eventually(lambda: _says_close(service), "the next supervisor has said so again")
        assert service.cli("supervisor", "reexec").returncode == 0
        assert _probe(service, "/readyz")[0] == 404

        with closing(connect(f"unix:{service.runtime}/control.sock")) as connection:
            connection.request("GET", "/metrics")
            metrics = connection.getresponse().read().decode()
        assert "stillup_cordoned 1.0" in metrics
        told = next(
            line for line in metrics.splitlines() if line.startswith("stillup_http_answers_told_to_close_total")
        )
        assert float(told.split()[1]) >= 3
        assert service.status().crossing.closed == 0, "they are counted apart"

        assert "not cordoned any more" in service.cli("uncordon").stdout
        assert _probe(service, "/readyz")[0] == 200
        eventually(lambda: not _says_close(service), "its worker is told")
        assert "nothing changed" in service.cli("uncordon").stdout
