"""A service, its dashboard, and a browser: each of a module's tests looks at the same page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.system.dashboard.dashboard_page import Dashboard, chromium, dashboard
from tests.system.killable_service import KillableService

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillableService]:
    """Two workers, whose boots are held by files such as ``hold-2.1``."""
    service = KillableService(tmp_path_factory.mktemp("service"), "--probation", "1", workers=2)
    service.tracebacks_expected = True
    with service:
        yield service


@pytest.fixture(scope="module")
def page(service: KillableService) -> Iterator[Dashboard]:
    with dashboard(service.runtime) as page:
        yield page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser
