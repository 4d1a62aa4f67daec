"""What a person at a real browser sees of reloads of the example's page: nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app_example.chat import STORY
from tests.system.gated_service import reloaded
from tests.system.harness import ROOT, Service, eventually
from tests.system.sessions.chat_member import Member

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.xdist_group("sessions")

RELOADS = 5


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """Chromium without a window, with a profile of its own."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"user-data-dir={tmp_path}/profile"):
        options.add_argument(f"--{option}")
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


@pytest.mark.timeout(240)
def test_a_person_sees_nothing(tmp_path: Path, stack: ExitStack, browser: Chrome) -> None:
    """The chat and the story go on, over one connection, through five releases."""
    options = ("--app-dir", str(ROOT), "--no-access-log", "--ws", "auto")
    service = stack.enter_context(Service(tmp_path, "app_example.chat:app", *options, workers=1))
    bob = Member(service, "bob")
    stack.callback(bob.leave)
    browser.get(f"http://{service.address()}/?name=ann")

    def shown(element: str) -> str:
        return str(browser.find_element("id", element).text)

    eventually(lambda: bob.lines[-1:] == ["ann has come"], "ann has come")
    stories = []
    for number in range(1, RELOADS + 1):
        button = browser.find_element("id", "tell")
        if button.is_enabled():
            stories.append(shown("story"))
            button.click()
        eventually(lambda: len(shown("story").split()) > 1, "the story has begun")
        browser.find_element("id", "text").send_keys(f"line {number}\n")
        eventually(lambda: bob.lines[-1] == f"ann: line {number}", "ann's line is heard")  # noqa: B023
        reloaded(service)
        bob.say(f"line {number}")
        eventually(lambda: shown("lines").endswith(f"bob: line {number}"), "bob's line is seen")  # noqa: B023
    worker = f"served by worker {RELOADS + 1}.1, connected 1 time(s)"
    eventually(lambda: worker in shown("state"), "the new worker has said so")
    eventually(browser.find_element("id", "tell").is_enabled, "the story has ended")
    stories.append(shown("story"))
    assert stories[0] == ""
    assert {" ".join(story.split()) for story in stories[1:]} == {STORY}
    said = [f"{name}: line {number}" for number in range(1, RELOADS + 1) for name in ("ann", "bob")]
    assert shown("lines").splitlines() == ["bob has come", "ann has come", *said]
    assert service.status().crossing.sessions_adopted >= 2 * RELOADS
