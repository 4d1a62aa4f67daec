"""``/metrics``: the figures and the fleet as Prometheus and OpenMetrics have them.

Names begin with ``stillup_``, units are base units. A counter never falls while the service is up: not when a worker
dies, and not when the supervisor does. A gauge is as the workers said it last.

``prometheus_client`` is loaded for the first look at them: a twentieth of a start that many services never need.
"""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from stillup import __version__
from stillup.core.crossing import ResumeRefusal
from stillup.core.model import Fleet
from stillup.core.states import GenerationState, WorkerState
from stillup.core.worker_figures import GAUGES
from stillup.daemon.state.figure_files import Totals
from stillup.wire import figure_cells
from stillup.wire.figure_cells import SECOND, Histogram
from stillup.wire.fleet_views import leads

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_ENCODERS: Final = "prometheus_client.openmetrics.exposition"
"""The last that is imported of what the first look needs."""


class Scene(msgspec.Struct, frozen=True):
    """Everything that is shown, at one moment."""

    fleet: Fleet
    totals: Totals
    waiting: int
    """Connections in the adoption queue."""
    reexecs: int
    capacity: int = 0
    """About how many connections the adoption queue holds; 0 while there is none."""


def is_loaded() -> bool:
    """Whether ``render`` will not block."""
    return _ENCODERS in sys.modules


def load() -> None:
    """Import what ``render`` needs. Blocks."""
    importlib.import_module(_ENCODERS)


def render(scene: Scene, accept: str) -> tuple[bytes, str]:
    """The text, and its content type: OpenMetrics for a client that accepts it, else Prometheus' own."""
    from prometheus_client import CollectorRegistry  # noqa: PLC0415 - see above
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415
    from prometheus_client.registry import Collector  # noqa: PLC0415

    class SceneCollector(Collector):
        def collect(self) -> Iterator[Metric]:
            yield from of_supervisor(scene)
            yield from of_service(scene)
            yield from of_workers(scene.fleet)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(SceneCollector())
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encode, content_type = choose_encoder("")
    return encode(registry), content_type


def of_supervisor(scene: Scene) -> Iterator[Metric]:
    """What the supervisor knows, and has counted itself."""
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
    leaders = {worker.name: 1 for worker in fleet.workers.values() if leads(fleet, worker)}
    yield _gauge("stillup_leader", "1 for the worker that leads; nothing while none does.", leaders, "worker")
    cordoned = int(fleet.cordoned is not None)
    yield _gauge("stillup_cordoned", "1 while no new clients are to be sent (stillup cordon).", cordoned)
    yield _gauge("stillup_workers_wanted", "Workers that a generation is to have.", fleet.size)
    plan = fleet.plan
    canary = plan.watch.workers if plan is not None and plan.watch is not None and plan.on_trial else 0
    yield _gauge("stillup_canary_workers", "Workers of a new generation that are watched as a canary.", canary)
    outcomes = {
        "succeeded": cells[figure_cells.SUCCEEDED],
        "aborted": cells[figure_cells.ROLLOUTS_ABORTED],
        "rolled-back": cells[figure_cells.ROLLED_BACK],
    }
    text = "Rollouts by outcome; one that was rolled back had succeeded before, and counts as both."
    yield _counter("stillup_rollouts", text, outcomes, "outcome")
    text = (
        "How long rollouts took from one phase to the next; waiting includes the hook before the first worker, "
        "draining is how long the old generation took to leave."
    )
    yield _histogram("stillup_rollout_phase_duration_seconds", text, cells, figure_cells.PHASES, "phase")
    text = "Workers that were started for a slot of the serving generation in the place of others."
    yield _counter("stillup_worker_respawns", text, cells[figure_cells.RESPAWNS])
    text = "Workers that ended without having been told to, or because they failed."
    yield _counter("stillup_worker_deaths", text, cells[figure_cells.DEATHS])
    yield _counter("stillup_worker_hangs", "Workers whose event loop was found to hang.", cells[figure_cells.HUNG])
    refused = {"denied": cells[figure_cells.DENIED], "busy": cells[figure_cells.TURNED_AWAY]}
    text = "Callers of the control sockets who were refused: denied, for want of a right; busy, for want of room."
    yield _counter("stillup_control_refused", text, refused, "why")
    yield _counter("stillup_supervisor_reexecs", "Times that the supervisor replaced its own program.", scene.reexecs)


def of_service(scene: Scene) -> Iterator[Metric]:
    """What all workers have counted, living and dead."""
    cells = scene.totals.service
    classes = {status: figure_cells.answers(status) for status in figure_cells.CLASSES}
    requests = {status: histogram.count(cells) for status, histogram in classes.items()}
    text = (
        "Requests by the class of their answer's status; a WebSocket's handshake is one; "
        "aborted: those whose client had left before their answer began."
    )
    yield _counter("stillup_http_requests", text, requests, "status")
    text = "From a request's head until its answer begins."
    yield _histogram("stillup_http_request_duration_seconds", text, cells, classes, "status")
    text = "Answers that began, and whose connection ended before they did."
    yield _counter("stillup_http_answers_cut_off", text, cells[figure_cells.CUT_OFF])
    text = "Answers that said Connection: close since the service was cordoned; those of a drain are not among them."
    yield _counter("stillup_http_answers_told_to_close", text, cells[figure_cells.ANSWERS_UNDER_CORDON])
    text = "Bytes of the bodies of requests, as the app took them."
    yield _counter("stillup_http_request_body_bytes", text, cells[figure_cells.RECEIVED])
    text = "Bytes of the bodies of answers, as the app, or uvicorn in its place, gave them."
    yield _counter("stillup_http_response_body_bytes", text, cells[figure_cells.SENT])
    crossing = {
        "given": cells[figure_cells.GIVEN],
        "adopted": cells[figure_cells.ADOPTED],
        "lost": cells[figure_cells.LOST],
        "closed": cells[figure_cells.CLOSED],
        "told-to-close": cells[figure_cells.ENDED_BY_ANSWER],
    }
    text = (
        "Connections that workers gave away and adopted, that were lost on the way, that were idle and had to be "
        "closed by a drain; told-to-close: that ended while a drain's answers said Connection: close, as they could "
        "not move."
    )
    yield _counter("stillup_crossing_connections", text, crossing, "event")
    sessions = {"given": cells[figure_cells.SESSIONS_GIVEN], "adopted": cells[figure_cells.SESSIONS_ADOPTED]}
    text = "WebSockets and answers that their apps handed over: those that workers gave away, and that they adopted."
    yield _counter("stillup_sessions", text, sessions, "event")
    refused = {str(reason): cells[figure_cells.refused(reason)] for reason in ResumeRefusal}
    yield _counter("stillup_sessions_refused", "Handed over, and ended instead of going on, by reason.", refused, "why")
    text = "Bytes of what travelled beside sessions: the app's state, the request, messages, compression."
    yield _counter("stillup_session_bytes", text, cells[figure_cells.SESSION_BYTES])
    yield _gauge("stillup_adoption_queue_connections", "Connections between two workers now.", scene.waiting)
    text = "Connections that this queue has room for; workers stop giving when about a quarter of it is taken."
    yield _gauge("stillup_adoption_queue_capacity_connections", text, scene.capacity)
    text = "By how much the once-a-second timer of each worker came late."
    yield _histogram("stillup_event_loop_lag_seconds", text, cells, {"": figure_cells.LAGS})
    text = "The newest of these lags, of the worker where it is worst."
    yield _gauge("stillup_event_loop_worst_lag_seconds", text, scene.totals.lag / SECOND)


def of_workers(fleet: Fleet) -> Iterator[Metric]:
    """What the living workers say."""
    for gauge in GAUGES:
        together = dict.fromkeys(gauge.values, 0.0)
        for worker in fleet.workers.values():
            for value, part in gauge.of(worker.figures).items():
                together[value] = together.get(value, 0.0) + part
        yield _gauge(gauge.name, gauge.help, together if gauge.label else sum(together.values()), gauge.label)


def _counter(name: str, text: str, values: Mapping[str, float] | float, label: str = "") -> Metric:
    from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415

    if not isinstance(values, Mapping):
        return CounterMetricFamily(name, text, values)
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _gauge(name: str, text: str, values: Mapping[str, float] | float, label: str = "") -> Metric:
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

    if not isinstance(values, Mapping):
        return GaugeMetricFamily(name, text, values)
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _histogram(
    name: str, text: str, cells: Sequence[int], histograms: Mapping[str, Histogram], label: str = ""
) -> Metric:
    from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415

    family = HistogramMetricFamily(name, text, labels=[label] if label else [])
    for value, histogram in histograms.items():
        family.add_metric([value] if label else [], histogram.cumulative(cells), histogram.seconds(cells))
    return family
