"""Services that roll, of two sizes: one that may have a worker more, and one that may have a worker fewer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.harness import FULL
from tests.system.rolling.rolling_service import Bounds, RollingService

SURGES, SHRINKS, BOTH = Bounds(3, 1, 0), Bounds(2, 0, 1), Bounds(4, 2, 1)


@pytest.fixture(scope="module", params=[SURGES, SHRINKS, BOTH] if FULL else [SURGES, SHRINKS], ids=str)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RollingService]:
    """One service for all tests of a module: each leaves it as it was."""
    with RollingService(tmp_path_factory.mktemp("rolling"), request.param) as service:
        yield service
