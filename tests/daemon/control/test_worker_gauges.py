"""What the workers say of themselves, added up in /metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families as parse

from stillup.core.crossing import ResumeRefusal
from stillup.core.drain import ConnectionClass
from stillup.core.events import Reported
from stillup.core.worker_figures import BACKGROUND, Leadership, WorkerFigures
from stillup.daemon.control.metrics import Scene, render
from stillup.daemon.state.figure_files import Totals
from stillup.wire import figure_cells
from stillup.wire.figure_cells import CELLS, SUPERVISOR_CELLS
from tests.core.story import Story, serving


def test_figures_of_all_workers_are_added_up() -> None:
    """By class, and those with a request in progress together; a class that nobody has is 0."""
    story = serving(size=2)
    story.tell(
        Reported(1, WorkerFigures({"idle": 3, "stream": 1})),
        Reported(2, WorkerFigures({"idle": 4, "in-progress": 2, "background": 1})),
    )
    found = gauges(story)
    assert found["stillup_http_requests_in_progress"] == {"": 3}
    nothing = dict.fromkeys((*map(str, ConnectionClass), BACKGROUND), 0)
    assert found["stillup_connections"] == {**nothing, "idle": 7, "stream": 1, "in-progress": 2, "background": 1}


def test_without_workers_there_is_nothing() -> None:
    """Every class is there all the same."""
    found = gauges(Story())
    assert found["stillup_http_requests_in_progress"] == {"": 0}
    assert found["stillup_connections"] == dict.fromkeys((*map(str, ConnectionClass), BACKGROUND), 0)


def test_who_leads() -> None:
    """The worker that was told to, and says that it does; one that only says so does not."""
    story = serving(size=2)
    assert gauges(story)["stillup_leader"] == {}
    story.tell(Reported(2, WorkerFigures(leadership=Leadership(wants=True))))
    assert gauges(story)["stillup_leader"] == {}, "it has yet to take the lock"
    said = WorkerFigures(leadership=Leadership(wants=True, leads=True))
    story.tell(Reported(1, said), Reported(2, said))
    assert gauges(story)["stillup_leader"] == {"1.2": 1}


def test_sessions() -> None:
    """Given, adopted, and not gone on with, each reason by itself; and how much travelled beside them."""
    cells = [0] * CELLS
    cells[figure_cells.SESSIONS_GIVEN], cells[figure_cells.SESSIONS_ADOPTED] = 7, 6
    cells[figure_cells.refused("unaware")], cells[figure_cells.SESSION_BYTES] = 1, 5000
    found = shown(Story(), cells, "counter")
    assert found["stillup_sessions"] == {"given": 7, "adopted": 6}
    assert found["stillup_sessions_refused"] == {**dict.fromkeys(map(str, ResumeRefusal), 0), "unaware": 1}
    assert found["stillup_session_bytes"] == {"": 5000}


def gauges(story: Story) -> dict[str, dict[str, float]]:
    """Every gauge, by the values of its label."""
    return shown(story, [0] * CELLS, "gauge")


def shown(story: Story, cells: list[int], kind: str) -> dict[str, dict[str, float]]:
    """Every figure of a kind, by the values of its label."""
    totals = Totals(cells, [0] * SUPERVISOR_CELLS, 0)
    text, _ = render(Scene(story.fleet, totals, waiting=0, reexecs=0), "text/plain")
    return {
        family.name: {next(iter(sample.labels.values()), ""): sample.value for sample in family.samples}
        for family in parse(text.decode())
        if family.type == kind
    }
