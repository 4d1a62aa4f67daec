"""Services that roll: one that may have a worker more, one that may have a worker fewer, and one after a canary."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.harness import FULL
from tests.system.rolling.rolling_service import Bounds, RollingService

SURGES, SHRINKS, BOTH = Bounds(3, 1, 0), Bounds(2, 0, 1), Bounds(4, 2, 1)
AFTER_A_CANARY = Bounds(3, 1, 0, canary=True)
ALL = [SURGES, SHRINKS, BOTH, AFTER_A_CANARY]


@pytest.fixture(scope="module", params=ALL if FULL else [SURGES, SHRINKS], ids=str)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RollingService]:
    """One service for all tests of a module: each leaves it as it was."""
    with RollingService(tmp_path_factory.mktemp("rolling"), request.param) as service:
        yield service
