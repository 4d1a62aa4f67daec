"""A folder for services that others ask."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that anybody can get through, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="stillup-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
