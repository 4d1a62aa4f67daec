"""No decision depends on the wall clock, which may jump."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import stillup

ROOT = Path(stillup.__file__).parent
WALL = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.strftime", "datetime"}
ALLOWED = {
    ("asgi/site.py", "time.time"),
    ("daemon/control/message_trace.py", "time.time"),
    ("daemon/state/console.py", "time.time"),
    ("daemon/state/history.py", "datetime"),
    ("daemon/state/series_keeper.py", "datetime"),
    ("wire/event_encoding.py", "datetime"),
    ("wire/event_feed.py", "datetime"),
    ("wire/event_envelope.py", "datetime"),
    ("wire/series_view.py", "datetime"),
    ("worker/worker_log.py", "time.time"),
    ("worker/fresh_sources.py", "time.time"),
    ("host/log_time.py", "time.localtime"),
    ("host/log_time.py", "time.gmtime"),
    ("host/log_time.py", "time.strftime"),
    ("client/trace_command.py", "time.localtime"),
    ("client/trace_command.py", "time.strftime"),
}
"""The Date header of an answer, and the times of events, points of a series, log lines and traced messages, are to say
what it says; a source file's time is of that clock."""


def uses(tree: ast.AST) -> Iterator[str]:
    """Each look at the wall clock in a module."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(ast.Name(module), name) if f"{module}.{name}" in WALL:
                yield f"{module}.{name}"
            case ast.ImportFrom(module=str(module), names=names):
                yield from (f"{module}.{alias.name}" for alias in names if f"{module}.{alias.name}" in WALL)
                if module in WALL:
                    yield module
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name in WALL)
            case _:
                continue


def test_uses() -> None:
    """The looks that this test knows of are found in either way of writing them."""
    code = (
        "import time, datetime; from datetime import UTC; from time import time, monotonic; time.time(), time.monotonic"
    )
    assert list(uses(ast.parse(code))) == ["datetime", "datetime", "time.time", "time.time"]


def test_the_wall_clock_is_not_asked() -> None:
    """Deadlines, ages and pauses are of CLOCK_MONOTONIC, also those that two processes compare; times shown are not."""
    found = {
        (str(path.relative_to(ROOT)), use)
        for path in ROOT.rglob("*.py")
        for use in uses(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == ALLOWED
