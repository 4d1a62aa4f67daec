"""/metrics: its counters never fall, whoever dies, and say exactly what clients have seen."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse

from stillup.host import shared_cells
from stillup.wire.runtime_paths import FIGURES
from tests.system.clients import Ended, Peer
from tests.system.harness import DEADLINE, FULL, Service, eventually, pids
from tests.system.mutations import COUNTS_IN_THE_WORKER, mutated

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
PAUSE = 0.02
"""Seconds between two requests of one client."""
LOOK = 0.1 if FULL else 0.25
"""Seconds between two looks at the metrics."""
RELOADS = 5 if FULL else 1
KILLS = 2 if FULL else 1
Sample = tuple[str, tuple[tuple[str, str], ...]]


def scrape(service: Service, accept: str = "text/plain") -> tuple[str, str]:
    """The content type and the text of the metrics.

    Raises:
        OSError, Ended: nobody is there.
    """
    with Peer("", socket.socket(socket.AF_UNIX)) as peer:
        peer.sock.settimeout(DEADLINE)
        peer.sock.connect(f"{service.runtime}/control.sock")
        answer = peer.get("/metrics", f"Accept: {accept}")
    assert answer.status == 200, answer
    return answer.headers["content-type"], answer.body


def counters(service: Service) -> dict[Sample, float]:
    """Every counter, histograms' too."""
    found: dict[Sample, float] = {}
    for family in parse(scrape(service)[1]):
        if family.type in ("counter", "histogram"):
            for sample in family.samples:
                found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def value(found: Mapping[Sample, float], name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def answered(found: Mapping[Sample, float]) -> float:
    """Requests that were answered in whole."""
    total = sum(count for (name, _), count in found.items() if name == "stillup_http_requests_total")
    return total - value(found, "stillup_http_requests_total", status="aborted")


def counted(service: Service, least: int, most: int) -> dict[Sample, float]:
    """Every counter, once the last answers are counted, which their clients may have had a moment before."""

    def look() -> dict[Sample, float] | None:
        found = counters(service)
        assert answered(found) <= most
        return found if answered(found) >= least else None

    return eventually(look, f"{least} answers are counted")


class Load:
    """Clients that ask and ask, each on a connection that it makes anew when it loses it; and their counts."""

    def __init__(self, address: str, clients: int = 4) -> None:
        self._address = address
        self._done = threading.Event()
        self.ok = [0] * clients
        """Answers that have come in whole, by client."""
        self.failed = [0] * clients
        """Requests that may have been sent, and had no answer in whole."""
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self) -> None:
        """See that every client is answered."""
        before = list(self.ok)
        eventually(lambda: all(now > then + 5 for now, then in zip(self.ok, before, strict=True)), "more answers")

    def _run(self, number: int) -> None:
        while not self._done.is_set():
            try:
                with Peer(self._address) as peer:
                    while not self._done.wait(PAUSE):
                        self.failed[number] += 1
                        assert peer.get().status == 200
                        self.failed[number] -= 1
                        self.ok[number] += 1
            except (Ended, OSError):
                continue


class Watch:
    """Somebody who reads the metrics all the time, and sees whether a counter falls."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.falls: list[str] = []
        self.scrapes = 0
        self._last: dict[Sample, float] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(LOOK):
            try:
                found = counters(self._service)
            except (OSError, Ended):
                continue
            self.scrapes += 1
            for sample, before in self._last.items():
                if found.get(sample, -1.0) < before:
                    self.falls.append(f"{sample}: {before} -> {found.get(sample)}")
            self._last = found


class Mortal(Service):
    """A service whose supervisor may be killed, and another be started."""

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def watched(
    folder: Path, environment: Mapping[str, str] | None = None, workers: int = 2
) -> Iterator[tuple[Mortal, Watch]]:
    """A service whose metrics are read all the time."""
    options = ("--no-access-log", "--orphan-timeout", "60", "--probation", "0")
    service = Mortal(folder, "main:app", *options, workers=workers, environment=environment)
    service.write()
    with service, Watch(service) as watch:
        yield service, watch


def reload(service: Service, times: int) -> None:
    for _ in range(times):
        asked = service.client.reload()
        assert service.settled(asked.id).outcome == "succeeded"


def kill_a_worker(service: Service) -> None:
    """Kill one, and see another in its place."""
    before = pids(service)
    os.kill(min(before.values()), signal.SIGKILL)
    eventually(lambda: len(pids(service)) == 2 and pids(service) != before, "its successor serves")


def test_the_counters(tmp_path: Path) -> None:
    """No counter ever falls, and the total is exact while nobody is killed; whoever is takes nothing with it.

    Reloads, workers killed and the supervisor once, under load.
    """
    with watched(tmp_path) as (service, watch):
        address = service.address()
        with Load(address) as load:
            reload(service, RELOADS)
            load.goes_on()
            eventually(lambda: len(service.generations()) == 1, "who drained has given all away")
            load.goes_on()
        assert sum(load.failed) == 0
        found = counted(service, sum(load.ok), sum(load.ok))
        assert sum(load.ok) == value(found, "stillup_http_requests_total", status="2xx")
        assert value(found, "stillup_http_request_duration_seconds_count", status="2xx") == sum(load.ok)
        assert value(found, "stillup_rollouts_total", outcome="succeeded") == 1 + RELOADS
        assert value(found, "stillup_rollout_phase_duration_seconds_count", phase="cutting-over") == 1 + RELOADS
        assert value(found, "stillup_worker_deaths_total") == 0
        given = value(found, "stillup_crossing_connections_total", event="given")
        assert given == value(found, "stillup_crossing_connections_total", event="adopted") > 0
        with Load(address) as more:
            for _ in range(KILLS):
                kill_a_worker(service)
                reload(service, 1)
            # What a worker has counted since it was looked at last ends with it if its supervisor dies with it.
            eventually(lambda: len(service.generations()) == 1, "who drains has left, and is counted")
            service.kill()
            more.goes_on()
            service.start()
            kill_a_worker(service)
            reload(service, RELOADS)
            more.goes_on()
        ok = sum(load.ok) + sum(more.ok)
        found = counted(service, ok, ok + sum(more.failed))
        assert value(found, "stillup_rollouts_total", outcome="succeeded") == 1 + 2 * RELOADS + KILLS
        assert value(found, "stillup_worker_deaths_total") == KILLS + 1
        assert value(found, "stillup_worker_respawns_total") == KILLS + 1
        scrapes = watch.scrapes
        eventually(lambda: watch.scrapes > scrapes, "one more look at the counters")
        assert watch.falls == []
    print(f"{ok} answers, {sum(more.failed)} lost with those who were killed, {watch.scrapes} scrapes")


def test_counters_that_live_in_the_worker_alone(tmp_path: Path) -> None:
    """If workers counted anywhere but in what outlives them, the test above would see it."""
    environment = mutated(tmp_path, COUNTS_IN_THE_WORKER)
    with watched(tmp_path, environment, workers=1) as (service, _):
        for _ in range(10):
            service.get()
        assert answered(counters(service)) == 0


def test_a_reexec_keeps_them(tmp_path: Path) -> None:
    """When the supervisor replaces its own program, what was counted stays; after a stop nothing is left of it."""
    with watched(tmp_path, workers=1) as (service, watch):
        in_both_formats(service)
        for _ in range(3):
            service.get()
        assert service.cli("supervisor", "reexec").returncode == 0
        service.get()
        found = counted(service, 4, 4)
        assert value(found, "stillup_supervisor_reexecs_total") == 1
        assert watch.falls == []
        place = shared_cells.place(str(service.runtime), FIGURES)
        assert len(shared_cells.found(place)) == 1
    assert shared_cells.found(place) == []
    with service:
        assert answered(counters(service)) == 0


def in_both_formats(service: Service) -> None:
    """Prometheus' own text, OpenMetrics for whoever accepts that, and the first for whoever asks for nonsense."""
    kind, text = scrape(service, OPEN_METRICS)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in parse_open_metrics(text)}  # type: ignore[no-untyped-call]
    assert all(name.startswith("stillup_") for name in names)
    for accept in ("text/plain", "*/*", "application/openmetrics-text; version=nonsense", "application/json"):
        kind, text = scrape(service, accept)
        assert kind.startswith("text/plain; version=0.0.4")
        assert {family.name for family in parse(text)} == names
    gauges = {sample.name: sample.value for family in parse(text) for sample in family.samples if not sample.labels}
    assert gauges["stillup_serving_generation"] == 1
    assert gauges["stillup_http_requests_in_progress"] == 0
    eventually(lambda: "lag_seconds_count 0" not in scrape(service)[1], "a heartbeat has been counted")
