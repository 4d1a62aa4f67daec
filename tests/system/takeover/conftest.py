"""The service whose supervisor is killed."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.system.killable_service import KillableService, Start


@pytest.fixture
def start(tmp_path: Path, stack: ExitStack) -> Start:
    """Starts a service with options of its own."""

    def started(*options: str, workers: int = 2, **others: Any) -> KillableService:
        return stack.enter_context(KillableService(tmp_path, *options, workers=workers, **others))

    return started
