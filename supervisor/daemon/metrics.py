"""``/metrics``: the figures and the fleet as Prometheus and OpenMetrics have them.

Names begin with ``stillup_``, units are base units. A counter never falls while the service is up: not when a worker
dies, and not when the supervisor does. A gauge is as the workers said it last, about a second ago.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from supervisor import __version__
from supervisor.core.drain import ConnectionClass
from supervisor.core.model import Fleet, GenerationState, WorkerState
from supervisor.daemon.figures import Totals
from supervisor.wire import figures
from supervisor.wire.figures import SECOND, Histogram

BACKGROUND: Final = "background"
"""What workers call tasks that outlive their answers."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene(Collector):
    """Everything that is shown, at one moment."""

    fleet: Fleet
    totals: Totals
    waiting: int
    """Connections in the adoption queue."""
    reexecs: int

    def collect(self) -> Iterator[Metric]:
        """Everything as metrics."""
        yield from _of_supervisor(self)
        yield from _of_service(self)


def render(scene: Scene, accept: str) -> tuple[bytes, str]:
    """The text, and its content type: OpenMetrics for whoever accepts that, else Prometheus' own."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(scene)
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encode, content_type = choose_encoder("")
    return encode(registry), content_type


def _of_supervisor(scene: Scene) -> Iterator[Metric]:
    fleet, cells = scene.fleet, scene.totals.supervisor
    yield _gauge("stillup_build_info", "The supervisor's version.", {__version__: 1}, "version")
    serving = fleet.serving.id if fleet.serving is not None else 0
    yield _gauge("stillup_serving_generation", "The number of the generation that serves; 0 if none does.", serving)
    generations = Counter(generation.state for generation in fleet.generations.values())
    states = {str(state): generations[state] for state in GenerationState if state is not GenerationState.GONE}
    yield _gauge("stillup_generations", "Generations by state.", states, "state")
    workers = Counter(worker.state for worker in fleet.workers.values())
    states = {str(state): workers[state] for state in WorkerState if state is not WorkerState.EXITED}
    yield _gauge("stillup_workers", "Worker processes by state.", states, "state")
    yield _gauge("stillup_workers_wanted", "Workers that a generation is to have.", fleet.size)
    outcomes = {
        "succeeded": cells[figures.SUCCEEDED],
        "aborted": cells[figures.ROLLOUTS_ABORTED],
        "rolled-back": cells[figures.ROLLED_BACK],
    }
    text = "Rollouts by outcome; one that was rolled back had succeeded before, and counts as both."
    yield _counter("stillup_rollouts", text, outcomes, "outcome")
    text = "How long rollouts took from one phase to the next; draining is how long the old generation took to leave."
    yield _histogram("stillup_rollout_phase_duration_seconds", text, cells, figures.PHASES, "phase")
    text = "Workers that were started for a slot of the serving generation in the place of others."
    yield _counter("stillup_worker_respawns", text, cells[figures.RESPAWNS])
    text = "Workers that ended without having been told to, or because they failed."
    yield _counter("stillup_worker_deaths", text, cells[figures.DEATHS])
    yield _counter("stillup_worker_hangs", "Workers whose event loop was found to hang.", cells[figures.HUNG])
    yield _counter("stillup_supervisor_reexecs", "Times that the supervisor replaced its own program.", scene.reexecs)


def _of_service(scene: Scene) -> Iterator[Metric]:
    cells = scene.totals.service
    classes = {status: figures.answers(status) for status in figures.CLASSES}
    requests = {status: histogram.count(cells) for status, histogram in classes.items()}
    text = (
        "Requests by the class of their answer's status; a WebSocket's handshake is one; "
        "aborted: those whose client had left before their answer began."
    )
    yield _counter("stillup_http_requests", text, requests, "status")
    text = "From a request's head until its answer begins."
    yield _histogram("stillup_http_request_duration_seconds", text, cells, classes, "status")
    text = "Answers that began, and whose connection ended before they did."
    yield _counter("stillup_http_answers_cut_off", text, cells[figures.CUT_OFF])
    connections = Counter(dict.fromkeys((*map(str, ConnectionClass), BACKGROUND), 0))
    for worker in scene.fleet.workers.values():
        connections.update(worker.connections)
    text = "Requests that are being answered."
    under_way = connections[ConnectionClass.IN_PROGRESS] + connections[ConnectionClass.STREAM]
    yield _gauge("stillup_http_requests_in_progress", text, under_way)
    text = "Bytes of the bodies of requests, as the app took them."
    yield _counter("stillup_http_request_body_bytes", text, cells[figures.RECEIVED])
    text = "Bytes of the bodies of answers, as the app, or uvicorn in its place, gave them."
    yield _counter("stillup_http_response_body_bytes", text, cells[figures.SENT])
    text = "Open connections by what they are doing; background: tasks that outlive their answers."
    yield _gauge("stillup_connections", text, connections, "class")
    crossing = {
        "given": cells[figures.GIVEN],
        "adopted": cells[figures.ADOPTED],
        "lost": cells[figures.LOST],
        "closed": cells[figures.CLOSED],
    }
    text = (
        "Connections that workers gave away and adopted, that were lost on the way, "
        "and that were idle and had to be closed by a drain."
    )
    yield _counter("stillup_crossing_connections", text, crossing, "event")
    yield _gauge("stillup_adoption_queue_connections", "Connections between two workers now.", scene.waiting)
    text = "By how much the once-a-second timer of each worker came late."
    yield _histogram("stillup_event_loop_lag_seconds", text, cells, {"": figures.LAGS})
    text = "The newest of these lags, of the worker where it is worst."
    yield _gauge("stillup_event_loop_worst_lag_seconds", text, scene.totals.lag / SECOND)


def _counter(name: str, text: str, values: Mapping[str, float] | float, label: str = "") -> Metric:
    if not isinstance(values, Mapping):
        return CounterMetricFamily(name, text, values)
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _gauge(name: str, text: str, values: Mapping[str, float] | float, label: str = "") -> Metric:
    if not isinstance(values, Mapping):
        return GaugeMetricFamily(name, text, values)
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _histogram(
    name: str, text: str, cells: Sequence[int], histograms: Mapping[str, Histogram], label: str = ""
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=[label] if label else [])
    for value, histogram in histograms.items():
        family.add_metric([value] if label else [], histogram.cumulative(cells), histogram.seconds(cells))
    return family
