"""What is asked for from the dashboard, by the keyboard; and what the supervisor refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.system.dashboard.dashboard_page import ENTER, ESCAPE, TAB, complaints, dashboard, opened, shown
from tests.system.harness import Service, eventually

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.xdist_group("dashboard")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose `current` leads to one of two releases."""
    folder = tmp_path_factory.mktemp("shop")
    service = Service(folder, "main:app", "--directory", str(folder / "current"), "--probation", "0", workers=2)
    for number in (1, 2):
        (folder / "releases" / str(number)).mkdir(parents=True)
        service.write(version=f"v{number}", name=f"releases/{number}/main.py")
    (folder / "current").symlink_to("releases/1")
    with service:
        yield service


def press(browser: Chrome, label: str, *keys: str) -> None:
    """Activate the button by Enter, and answer the question by these keys."""
    browser.find_element("xpath", f"//header//button[.='{label}']").send_keys(ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "dialog-no"
    for key in keys:
        browser.switch_to.active_element.send_keys(key)


def test_by_the_keyboard(browser: Chrome, shop: Service) -> None:
    """A question comes first; Escape is a no; what is asked for happens, once, and what came of it is said."""
    yes = (TAB, ENTER)
    with dashboard(shop.runtime) as page:
        opened(browser, page)
        press(browser, "Reload", ESCAPE)
        assert not browser.find_element("id", "dialog").is_displayed()
        assert browser.switch_to.active_element.text == "Reload"
        link = shop.folder / "current"
        link.unlink()
        link.symlink_to("releases/2")
        press(browser, "Reload", *yes)
        eventually(lambda: shop.generations() == [2], "the reload")
        eventually(lambda: shown(browser, "said") == "gen 2 serves.", "its outcome is said")
        press(browser, "Roll back", *yes)
        eventually(lambda: shop.generations() == [3], "the rollback")
        eventually(lambda: shown(browser, "said") == "gen 3 serves.", "its outcome is said")
        assert (shop.get()[-2:], len(shop.client.history())) == ("v1", 3)
        press(browser, "+ worker", *yes)
        eventually(lambda: len(shop.workers()) == 3, "one worker more")
        rows = "return document.querySelectorAll('[data-worker]').length"
        eventually(lambda: browser.execute_script(rows) == 3, "it is shown")
        press(browser, "\N{MINUS SIGN} worker", *yes)
        eventually(lambda: len(shop.workers()) == 2, "one worker fewer")
        eventually(lambda: browser.execute_script(rows) == 2, "it is shown")
        eventually(lambda: "POST /v1/rollback" in shown(browser, "events"), "the events tell of it")
        assert complaints(browser) == []
        press(browser, "Roll back", *yes)
        eventually(lambda: "Roll back: " in shown(browser, "said") and "release" in shown(browser, "said"), "a refusal")
        assert shop.generations() == [3]
