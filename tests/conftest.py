"""How the tests are spread over processes: what puts load on a service runs in one of them, one after the other.

And what a test leaves to the next one: nothing, neither in its process nor beside it.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from tests import children

# An example has no deadline of its own: a machine that others share may stand still for 0.2 s in any of them.
# The usual ones are the same in each run: a change is judged by what it changes. `make prove-laws` finds new ones.
# So Hypothesis takes no numbers from the package's source: those depend on what is imported by then, and how installed.
providers.is_local_module_file = lambda _: False  # type: ignore[assignment, attr-defined]
settings.register_profile("usual", deadline=None, max_examples=30, derandomize=True)
settings.register_profile("prove", deadline=None, max_examples=1000)
settings.load_profile("usual")

# Nothing that a test starts writes bytecode: of two versions of an app, of one size and written within a second, the
# second would run as the first. (What is compiled of the tests, this process and those of pytest-xdist have read.)
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

ROOT = Path(__file__).parent
GROUPS = {
    "benchmarks": "load",
    "system/chaos": "load",
    "system/crossing/test_many_reloads.py": "load",
    "system/manager/test_deploy_page.py": "systemd",
    "system/manager/test_proxy.py": "load",
    "system/manager/test_restarts.py": "load",
    "system/manager/test_units.py": "systemd",
    "system/rolling": "rolling",
    "system/sessions/test_load.py": "load",
    "system/sessions/test_many.py": "load",
    "system/test_drop.py": "load",
    "system/test_schemathesis.py": "schemathesis",
}
"""Many loads at a time would be in each other's way, and in that of every deadline: there are two, the one of rolling
reloads, which is light, and all others. Others share what took long."""

WAITING = ("cases", "docs", "system")
"""Where tests of whole services are, which wait most of their time."""


@pytest.hookimpl(tryfirst=True)  # pytest-xdist's own adds the group to each node id
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests run in one process, one after the other (pytest-xdist, ``--dist loadgroup``), and in which order.

    Most of those of whole services wait, and most others compute: a file of these comes after one of those, so that
    the processors have something to do from the first to the last of them.
    """
    for item in items:
        for group in _groups(item.path):
            item.add_marker(pytest.mark.xdist_group(group))
    number: Counter[bool] = Counter()
    begins: dict[Path, tuple[bool, int]] = {}
    """Of each file, whether it waits, and how many tests of its kind come before it."""
    for item in items:
        waits = item.path.relative_to(ROOT).parts[0] in WAITING
        begins.setdefault(item.path, (waits, number[waits]))
        number[waits] += 1
    parts = {path: before / number[waits] for path, (waits, before) in begins.items()}
    items.sort(key=lambda item: parts[item.path])


@functools.cache
def _groups(file: Path) -> list[str]:
    """The groups that a file's tests are of by its name."""
    name = str(file.relative_to(ROOT))
    return [group for beginning, group in GROUPS.items() if name.startswith(beginning)]


def pytest_collection_finish() -> None:
    """Let a garbage collection look at what tests have made, and at nothing that was there before."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _none_outlives_us() -> Iterator[None]:
    with children.none_outlives_us():
        yield


@pytest.fixture(scope="module", autouse=True)
def _nothing_left(_none_outlives_us: None) -> Iterator[None]:
    """What a module's tests have started has ended with them, and orphans still come to PID 1, which reaps them."""
    before = children.running()
    yield
    left = children.end(set(children.running()) - set(before))
    assert not children.are_sent_orphans(), "a test has made this process a subreaper, which it will stay"
    assert not left, f"left behind, and killed: {left}"


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
