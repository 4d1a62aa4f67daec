"""docs/metrics.md has every metric that /metrics shows, as it shows it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families as parse

from docs import make_metrics
from stillup.core.events import Reported
from stillup.core.worker_figures import Leadership, WorkerFigures
from stillup.daemon.control.metrics import Scene, render
from stillup.daemon.state.figure_files import Totals
from stillup.wire.figure_cells import CELLS, SUPERVISOR_CELLS
from tests.core.story import serving
from tests.docs.metric_rows import PAGE, metric_rows


def test_the_page_is_what_the_program_prints() -> None:
    """It is made by ``python -m docs.make_metrics > docs/metrics.md``."""
    assert PAGE.read_text() == make_metrics.page()


def test_the_page_has_every_metric_of_a_service() -> None:
    """One that serves, with a worker that leads and has connections: names, types, texts, labels and their values."""
    story = serving(size=2)
    story.tell(Reported(2, WorkerFigures(leadership=Leadership(wants=True))))
    story.tell(Reported(2, WorkerFigures({"idle": 3, "background": 1}, leadership=Leadership(wants=True, leads=True))))
    totals = Totals(list(range(CELLS)), list(range(SUPERVISOR_CELLS)), 1)
    text, _ = render(Scene(story.fleet, totals, waiting=1, reexecs=2, capacity=3), "text/plain")
    rows = {row.name: row for row in metric_rows()}
    families = list(parse(text.decode()))
    assert len(families) == len(rows)
    for family in families:
        row = rows[f"{family.name}_total" if family.type == "counter" else family.name]
        assert (row.type, row.help) == (family.type, family.documentation)
        assert family.samples, f"{family.name}: its labels are not seen"
        for sample in family.samples:
            assert sample.name in row.series
            labels = {label: value for label, value in sample.labels.items() if label != "le"}
            assert labels.keys() == row.labels.keys()
            assert all(value in (row.labels[label] or {value}) for label, value in labels.items()), sample
