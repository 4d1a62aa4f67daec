"""The service that the connections are at."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.gated_service import PATIENT, Start
from tests.system.harness import Service
from tests.system.mutations import Mutation, mutated


@pytest.fixture
def start(tmp_path: Path, stack: ExitStack) -> Start:
    """Starts the gated app with options of its own, and perhaps with its code broken."""

    def started(*options: str, workers: int = 2, changes: Sequence[Mutation] = ()) -> Service:
        environment = mutated(tmp_path, *changes) if changes else None
        service = Service(tmp_path, *PATIENT, *options, workers=workers, environment=environment)
        return stack.enter_context(service)

    return started
