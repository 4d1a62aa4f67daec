"""What to do about an import that fails since the app's packages are in another environment than ours."""

from __future__ import annotations

import itertools
import os
import sys
from typing import Final

_TOOLS: Final = (("pipx", "venvs"), ("uv", "tools"))
"""Parts of the path of an environment that pipx or ``uv tool`` has made: stillup is in it, and nothing of the app's."""
_PYTHONS: Final = (".venv/bin/python", "venv/bin/python", "env/bin/python")


def import_hint(error: BaseException) -> str:
    """For the end of a message, once the working directory is the app's; empty where nothing speaks for it."""
    if not isinstance(error, ImportError):
        return ""
    if python := _other():
        return f" (its packages may be those of {python}: --python {python}; it needs stillup, too)"
    parts = sys.prefix.split(os.sep)
    if any(pair in itertools.pairwise(parts) for pair in _TOOLS):
        return (
            f" (stillup is in an environment of its own, {sys.prefix}: --python .venv/bin/python, or where the app's "
            "packages are, has workers run there; it needs stillup, too)"
        )
    return ""


def _other() -> str:
    """An interpreter of the project's that is not ours."""
    active = os.environ.get("VIRTUAL_ENV")
    for path in (*([f"{active}/bin/python"] if active else []), *_PYTHONS):
        prefix = os.path.dirname(os.path.dirname(os.path.abspath(path)))
        if os.access(path, os.X_OK) and not (os.path.exists(sys.prefix) and os.path.samefile(prefix, sys.prefix)):
            return path
    return ""
