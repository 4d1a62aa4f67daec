"""What a worker tells its supervisor of a probe that is not healthy yet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stillup.core.worker_settings import WorkerSettings
from stillup.wire.handoff_messages import ProbeAnswer
from stillup.worker.boot import Boot


@pytest.mark.parametrize("hears", [True, False])
def test_only_who_understands_it_is_told(hears: bool) -> None:
    """A supervisor of an earlier version would hang up at a message that it does not know."""
    said: list[object] = []
    settings = WorkerSettings(health_path="/", hears_probe=hears)
    channel: Any = SimpleNamespace(welcome=SimpleNamespace(settings=settings), say_now=said.append)
    nothing: Any = None
    Boot(channel, nothing, nothing, nothing)._tell_answer(503)
    assert said == ([ProbeAnswer(503)] if hears else [])
