"""Importing an app: what it raises is shown, and said in a line."""

from __future__ import annotations

from collections.abc import Callable

from stillup.worker.import_hint import import_hint
from stillup.worker.worker_log import WorkerLog


def why_not(load: Callable[[], object], log: WorkerLog) -> str:
    """Why ``load``, which runs the app's code, fails; empty if it does not. The traceback is in the log."""
    try:
        load()
    except SystemExit:  # uvicorn has said why
        return "the app could not be loaded"
    except BaseException as error:  # noqa: BLE001 - an app may raise anything
        log.show_error(error)
        return f"{type(error).__name__}: {error}{import_hint(error)}"
    return ""
