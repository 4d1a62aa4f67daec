"""When what the workers count is copied into their files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stillup.core.events import Reported
from stillup.core.worker_figures import WorkerFigures
from stillup.daemon.state import figures_store
from stillup.daemon.state.figure_files import FigureFiles
from stillup.daemon.state.figures_store import Figures
from stillup.host import shared_cells
from stillup.host.descriptors import close
from stillup.host.runtime_directory import claim
from stillup.wire.figure_cells import LAYOUT, OF_LAYOUT, SENT
from stillup.wire.runtime_paths import FIGURES
from tests.asgi.event_loops import until
from tests.core.story import serving

pytestmark = pytest.mark.usefixtures("no_leak")


async def test_when_workers_tell_of_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon after they have, and again if that fails; what they say again, or that they live on, wakes nobody up."""
    monkeypatch.setattr(figures_store, "PERIOD", 0.01)
    runtime, story = claim(str(tmp_path / "rt")), serving()
    store, looks = FigureFiles(runtime), 0
    look = store.look

    def looked() -> list[list[int]]:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise OSError("not this time")
        return look()

    monkeypatch.setattr(store, "look", looked)
    kept = Figures(store)
    keeping = asyncio.create_task(kept.keep())
    await kept.begin(1)
    (memory,) = kept.descriptors(1)
    shared_cells.write(memory, OF_LAYOUT, LAYOUT)

    def tell(requests: int) -> bool:
        """Whether it is to be copied."""
        before = story.fleet
        shared_cells.write(memory, SENT, 10 * requests)
        story.tell(Reported(1, WorkerFigures(requests=requests, cpu=story.now)))
        kept.changed(before, story.fleet)
        return kept._counted.is_set()

    assert not tell(0)
    assert tell(1)
    await until(lambda: looks == 2)
    await until(lambda: not kept._counted.is_set())
    assert not tell(1)
    await kept.written()
    (name,) = shared_cells.found(shared_cells.place(runtime.path, FIGURES))
    file = shared_cells.reopen(name)
    assert shared_cells.read(file)[SENT] == 10
    close([file])
    keeping.cancel()
    await kept.remove()
    kept.close()
    runtime.close()
