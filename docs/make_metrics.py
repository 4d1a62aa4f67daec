"""Makes ``docs/metrics.md`` from what ``/metrics`` renders: ``python -m docs.make_metrics > docs/metrics.md``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from stillup.core.model import Fleet, Worker
from stillup.core.states import WorkerState
from stillup.core.term import Term
from stillup.core.worker_figures import Leadership, WorkerFigures
from stillup.daemon.control.metrics import Scene, of_service, of_supervisor, of_workers
from stillup.daemon.state.figure_files import Totals
from stillup.wire.figure_cells import CELLS, SUPERVISOR_CELLS

if TYPE_CHECKING:
    from prometheus_client.core import Metric

HEAD: Final = "| metric | type | label | |"
OPEN: Final = {"version": "such as `0.1.0`", "worker": "such as `1.2`"}
"""Labels whose values are not known beforehand."""
INTRODUCTION: Final = """\
# Metrics

Of `GET /metrics`: what a service and its supervisor have counted, for Prometheus, and as OpenMetrics if `Accept` asks
for that. It is on the control socket ([control API](control-api.md#metrics)), and at `--admin-bind` over TCP, which
Prometheus needs. A `prometheus.yml`:

```text
rule_files:
  - alerts.yml

scrape_configs:
  - job_name: stillup
    scrape_interval: 15s
    static_configs:
      - targets: ["10.0.0.1:9464", "10.0.0.2:9464"]
```

Each host has `admin-bind = "10.0.0.1:9464"`, with its own address. Whoever can connect there can read the metrics, and
see whether the service lives and is ready; nothing else ([security](security.md)).

- *A counter* (its name ends with `_total`) never falls while the service is up: not over reloads, not when a worker
  dies, and not when the supervisor is killed or replaces its own program. After a stop and a start it begins with 0.
- *A gauge* is how things are now; what workers say of themselves is about a second old,
  or as it was at most 5 s ago where hardly anything has changed since.
- *A histogram* is three of Prometheus' time series: its name with `_bucket` (and the label `le`), `_sum` and `_count`.
  Its bounds may change from one version to the next ([what is stable](stability.md)).
- *Units* are seconds and bytes.
- *Values of labels* that are listed here are there from the start, with 0: `increase()` and `rate()` see the first one.
- No metric has a generation or a process in its labels, but for `stillup_leader`: a reload makes no new time series.

[deploy/prometheus/alerts.yml](../deploy/prometheus/alerts.yml) has alerts, each with what to do next, and
[alerts_test.yml](../deploy/prometheus/alerts_test.yml) when they fire (`promtool test rules`).
[deploy/grafana/stillup.json](../deploy/grafana/stillup.json) is a dashboard for Grafana: import it, and choose the data
source. It marks each change of the generation that serves.

What an app counts itself is on [another page](observability.md). This one is made by `python -m docs.make_metrics`; a
test compares the two.
"""


def page() -> str:
    """The whole page."""
    scene = first_scene()
    groups = {
        "The supervisor": of_supervisor(scene),
        "The service": of_service(scene),
        "The workers": of_workers(scene.fleet),
    }
    tables = [f"## {title}\n\n{table(list(families))}\n" for title, families in groups.items()]
    return "\n".join([INTRODUCTION, *tables])


def first_scene() -> Scene:
    """Nothing is counted yet, and one worker leads, so that every metric has a value."""
    figures = WorkerFigures(leadership=Leadership(wants=True, leads=True))
    worker = Worker(serial=1, generation=1, slot=1, state=WorkerState.SERVING, spawned=0.0, figures=figures)
    fleet = Fleet(workers={1: worker}, term=Term(number=1, worker=1))
    return Scene(fleet, Totals([0] * CELLS, [0] * SUPERVISOR_CELLS, 0), waiting=0, reexecs=0)


def table(families: Sequence[Metric]) -> str:
    """Some metrics, each in a row."""
    return "\n".join([HEAD, "|---|---|---|---|", *map(_row, families)])


def _row(family: Metric) -> str:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return f"| `{name}` | {family.type} | {'; '.join(_labels(family))} | {family.documentation} |"


def _labels(family: Metric) -> Iterator[str]:
    """Each label with its values, but for the bounds of a histogram."""
    values: dict[str, dict[str, None]] = {}
    for sample in family.samples:
        for label, value in sample.labels.items():
            values.setdefault(label, {})[value] = None
    values.pop("le", None)
    for label, known in values.items():
        yield f"`{label}`: {OPEN.get(label) or ', '.join(f'`{value}`' for value in known)}"


if __name__ == "__main__":
    print(page(), end="")
