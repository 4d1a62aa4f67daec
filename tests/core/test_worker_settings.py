"""What comes of the settings of a release's workers."""

from __future__ import annotations

import importlib.util

from stillup.core.worker_settings import WorkerSettings


def test_what_a_worker_runs_can_be_run() -> None:
    """As ``python -m`` wants it."""
    assert importlib.util.find_spec(f"{WorkerSettings().module}.__main__") is not None
