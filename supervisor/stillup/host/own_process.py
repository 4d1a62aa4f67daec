"""What this process can say of itself."""

from __future__ import annotations

import os

from stillup import __version__
from stillup.host.processes import started
from stillup.wire.api_shapes import ProcessFigures


def measured() -> ProcessFigures:
    """Its figures, as they are now."""
    return ProcessFigures(version=__version__, pid=os.getpid())


def instance() -> str:
    """What tells it from every other process of this host; the same over execve(2)."""
    return f"{os.getpid()}-{started(os.getpid())}"
