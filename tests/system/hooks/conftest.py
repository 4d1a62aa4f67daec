"""The service whose hooks a test lets go on."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.system.hooks.hooked_service import Hooked, HookedService


@pytest.fixture
def hooked(tmp_path: Path, stack: ExitStack) -> Hooked:
    """Starts a service, without hooks yet unless it is given some."""

    def started(*options: str, workers: int = 1, wait: bool = True, path: str = "", **hooks: Any) -> HookedService:
        service = HookedService(tmp_path, *options, workers=workers, wait=wait, path=path)
        if hooks:
            service.configure(**hooks)
        else:
            service.configure()
        return stack.enter_context(service)

    return started
