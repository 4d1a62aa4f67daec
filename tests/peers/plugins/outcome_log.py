"""A plugin for pytest that writes how each test ended, as JSON, into the file that OUTCOMES names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

_ended: dict[str, tuple[str, str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Its outcome is that of the call, unless what comes before or after fails or skips it."""
    if report.when == "call" or not report.passed:
        _ended[report.nodeid] = (report.outcome, report.longreprtext)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The processes that xdist has made have told the first one."""
    if not hasattr(session.config, "workerinput"):
        Path(os.environ["OUTCOMES"]).write_text(json.dumps(_ended), encoding="utf-8")
