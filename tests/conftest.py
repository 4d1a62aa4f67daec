"""How the tests are spread over processes: what puts load on a service runs in one of them, one after the other.

And what a test leaves to the next one in its process: nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# An example has no deadline of its own: a machine that others share may stand still for 0.2 s in any of them.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

ROOT = Path(__file__).parent
LOAD = (
    "benchmarks",
    "system/chaos",
    "system/manager",
    "system/test_crossing.py",
    "system/test_drop.py",
    "system/test_endurance.py",
)
"""Two loads at a time would be in each other's way, and in that of every deadline."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put those under load into one group (pytest-xdist, ``--dist loadgroup``)."""
    for item in items:
        if str(item.path.relative_to(ROOT)).startswith(LOAD):
            item.add_marker(pytest.mark.xdist_group("load"))


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Take back what each ``uvicorn.Config`` that a test makes sets up for its whole process."""
    loggers = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "uvicorn.access")]
    were = [(logger, logger.level, logger.propagate, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, propagate, handlers in were:
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers[:] = handlers
