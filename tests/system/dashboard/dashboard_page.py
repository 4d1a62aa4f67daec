"""A dashboard of a service, and a real browser that looks at it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.children import spawned
from tests.system.harness import DEADLINE, STILLUP, eventually

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

WIDE, NARROW = (1280, 1000), (400, 900)
ENTER, TAB, ESCAPE, HOME, RIGHT = "\ue007", "\ue004", "\ue00c", "\ue011", "\ue014"
"""Keys (W3C WebDriver, 17.4.2)."""


class Dashboard:
    """One that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.address = process.stdout.readline().strip()
        assert self.address, process.stderr and process.stderr.read()
        self.url, _, self.key = self.address.partition("#")
        self.port = int(self.url.rpartition(":")[2].strip("/"))


@contextlib.contextmanager
def dashboard(runtime: Path, *words: str, become: Sequence[str] = (), **options: Any) -> Iterator[Dashboard]:
    """``stillup dashboard`` of the service there; it ends at Ctrl-C, and says that all is well."""
    argv = [*become, STILLUP, "dashboard", "--runtime-dir", str(runtime), *words]
    told = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    with spawned(argv, **told) as process:
        yield Dashboard(process)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=DEADLINE)
        assert (process.returncode, error) == (0, "Ctrl-C ends it\n")


@contextlib.contextmanager
def chromium(profile: Path, *options: str, become: Sequence[str] = (), home: Path | None = None) -> Iterator[Chrome]:
    """Chromium without a window, with a profile of its own.

    ``become``: the words before chromedriver's command, of somebody whose home it is.
    """
    webdriver = pytest.importorskip("selenium.webdriver")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    if become:
        script = profile / "driver"
        script.write_text(
            f'#!/bin/sh\ncd {home}\nexport HOME={home} TMPDIR={home}\nexec {" ".join(become)} {driver} "$@"\n'
        )
        script.chmod(0o755)
        driver = str(script)
    chosen = webdriver.ChromeOptions()
    chosen.binary_location = binary
    chosen.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    plain = ("headless=new", "no-sandbox", "disable-dev-shm-usage", "no-first-run", "disable-background-networking")
    window = f"window-size={WIDE[0]},{WIDE[1]}"
    for option in (*plain, window, f"user-data-dir={profile}/profile", *options):
        chosen.add_argument(f"--{option}")
    chrome = webdriver.Chrome(chosen, webdriver.ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


def resize(browser: Chrome, size: tuple[int, int], scheme: str = "light") -> None:
    """Show the page in so many CSS pixels, and to somebody who prefers light or dark."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def shown(browser: Chrome, element: str) -> str:
    """The text of the element with that id; empty while it is hidden."""
    return str(browser.find_element("id", element).text)


def steps(browser: Chrome) -> dict[str, str]:
    """The states of the steps that are shown."""
    script = "return [...document.querySelectorAll('#steps li')].map((one) => [one.dataset.step, one.dataset.state])"
    return dict(browser.execute_script(script))


def buttons(browser: Chrome) -> list[str]:
    """The buttons that are there, outside of the dialog."""
    script = "return [...document.querySelectorAll('button:not(dialog *)')].map((one) => one.textContent)"
    return list(browser.execute_script(script))


def press(browser: Chrome, label: str) -> None:
    """Click a button of the header until it asks whether it shall: what comes beside it moves it, maybe just then."""

    def asks() -> bool:
        if shown(browser, "dialog-yes") not in ("", label):  # another one was hit
            browser.find_element("id", "dialog-no").click()
        if not shown(browser, "dialog-yes"):
            browser.find_element("xpath", f"//header//button[.='{label}']").click()
        return shown(browser, "dialog-yes") == label

    eventually(asks, f"it asks whether to {label}")


def unfold(browser: Chrome, details: str) -> None:
    """Click the summary of what that selector finds until it is open: a row that comes above it moves it."""

    def is_open() -> bool:
        found = browser.find_element("css selector", details)
        if not found.get_attribute("open"):
            found.find_element("tag name", "summary").click()
        return bool(found.get_attribute("open"))

    eventually(is_open, f"{details} is open")


def opened(browser: Chrome, page: Dashboard, name: str = "") -> None:
    """Open the page by its address, and wait until it shows the service."""
    browser.get(page.address)
    eventually(lambda: shown(browser, "state") and shown(browser, "facts"), f"the page of {name or page.url}")


def complaints(browser: Chrome) -> list[str]:
    """What the browser's console says, but for what it was told."""
    return [str(line["message"]) for line in _log(browser, "browser")]


def requested(browser: Chrome) -> set[str]:
    """The addresses that have been asked since the last look, without what is Chromium's own."""
    found = set()
    for line in _log(browser, "performance"):
        message = json.loads(line["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.add(str(message["params"]["request"]["url"]))
    return {url for url in found if not url.startswith(("data:", "chrome", "about:"))}


def _log(browser: Chrome, kind: str) -> list[dict[str, Any]]:
    """What came since the last look."""
    lines: list[dict[str, Any]] = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return lines
