"""What a person sees and does at the dashboard of a real service, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.clients import Peer
from tests.system.dashboard.dashboard_page import (
    HOME,
    NARROW,
    RIGHT,
    WIDE,
    Dashboard,
    buttons,
    complaints,
    dashboard,
    opened,
    press,
    requested,
    resize,
    shown,
    steps,
    unfold,
)
from tests.system.gated_service import open_gate
from tests.system.harness import eventually
from tests.system.killable_service import HELD, KillableService
from tests.system.steady_load import Traffic

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = [pytest.mark.xdist_group("dashboard"), pytest.mark.timeout(240)]

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
AXE = """
const [rules, done] = arguments;
const shown = (one) => `${one.id}: ${one.nodes.map((node) => `${node.target} ${node.failureSummary}`)}`;
axe.run(document, { runOnly: rules, resultTypes: ["violations"] }).then((found) => done(found.violations.map(shown)));
"""


@pytest.fixture(scope="module", autouse=True)
def _opened(browser: Chrome, page: Dashboard, service: KillableService) -> None:
    """The key in the address is good for a minute: the tests share the page that is opened first."""
    opened(browser, page)
    assert service.generations() == [1]


@pytest.fixture
def rest(service: KillableService) -> Callable[[], int]:
    """Wait until one generation serves, and the rollout is over; its number."""

    def alone() -> int:
        for file in service.folder.glob("hold-*"):
            file.unlink()
        for file in service.folder.glob("*.reached"):  # who waits there since a test that failed
            file.with_suffix("").touch()
        if (service.folder / "main.py").read_text() != HELD:  # written again it would be another release
            service.write(HELD)

        def look() -> int:
            status = service.status()
            over = status.rollout is not None and status.rollout.state in ("done", "aborted", "rolled-back")
            return status.generations[0].id if over and len(status.generations) == 1 else 0

        return eventually(look, "one generation, and no rollout")

    return alone


def step(browser: Chrome, key: str) -> str:
    """All that a step says."""
    script = "return document.querySelector(`#steps [data-step='${arguments[0]}']`)?.innerText ?? ''"
    return str(browser.execute_script(script, key))


def booting(browser: Chrome, generation: int) -> None:
    """Wait until it is shown that this one boots: the page may still have the rollout before."""

    def look() -> bool:
        return f"gen {generation}" in shown(browser, "rollout-what") and steps(browser).get("boot") == "active"

    eventually(look, f"it is shown that gen {generation} boots")


def test_a_reload_under_load(browser: Chrome, service: KillableService, rest: Callable[[], int]) -> None:
    """Each step is shown as the API tells it, while it lasts, with deadlines that come nearer."""
    old = rest()
    new = old + 1
    hold = [service.folder / f"hold-{new}.{slot}" for slot in (1, 2)]
    for file in hold:
        file.touch()
    with Traffic(service.address()) as traffic, Peer(service.address()) as slow:
        slow.send(b"GET /chunked?gate=slow HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually((service.folder / "slow.reached").exists, "a stream has begun")
        number = service.client.reload().id
        booting(browser, new)
        assert service.client.rollout(number).state == "booting"
        eventually(lambda: "0 of 2 ready" in step(browser, "boot"), "none is ready")
        hold[0].unlink()
        eventually(lambda: "1 of 2 ready" in step(browser, "boot"), "one is ready")
        assert service.client.rollout(number).workers_ready == 1
        assert (steps(browser)["cut-over"], steps(browser)["end"]) == ("todo", "todo")
        assert "Abort" in buttons(browser)
        hold[1].unlink()
        eventually(lambda: steps(browser)["drain"] == "active", "the drain is shown")
        eventually(lambda: service.client.rollout(number).drains == {"stream": 1}, "all others have moved")
        seen = service.client.rollout(number)
        assert (seen.state, seen.outcome) == ("draining", "succeeded")
        eventually(lambda: f"gen {old} still has 1 stream" in step(browser, "drain"), "what it waits for")
        said = eventually(lambda: re.search(r"at most (.+)", step(browser, "drain")), "its deadline")
        eventually(lambda: said[0] not in step(browser, "drain"), "the deadline comes nearer")
        assert steps(browser) | {"probation": ""} == {
            "asked": "done",
            "boot": "done",
            "cut-over": "done",
            "drain": "active",
            "probation": "",
            "end": "todo",
        }
        eventually(lambda: shown(browser, "said") == f"gen {new} serves.", "the outcome is said")
        assert f"gen {new}" in shown(browser, "generations")
        open_gate(service, "slow")
        eventually(lambda: steps(browser)["end"] == "done", "it is done")
        ended = service.client.rollout(number)
        assert (ended.state, ended.moved > 0) == ("done", True)
        moved = eventually(lambda: re.search(r"(\d+) connections? moved", step(browser, "drain")), "what has moved")
        assert int(moved[1]) == service.client.rollout(number).moved
        assert service.client.rollout(number).cut_over_took is not None
        traffic.goes_on()
    assert "Abort" not in buttons(browser)


def test_a_bad_release(browser: Chrome, service: KillableService, rest: Callable[[], int]) -> None:
    """What the worker wrote is shown, and stays with the outcome when the next rollout has come."""
    good = rest()
    service.write("print('<b>my app</b>')\nimport nosuch\n")
    rollout = service.settled(service.client.reload().id)
    assert rollout.outcome == "aborted"
    assert rollout.failure is not None
    eventually(lambda: "No module named 'nosuch'" in shown(browser, "failure-output"), "the traceback")
    assert "<b>my app</b>" in shown(browser, "failure-output")
    assert shown(browser, "failure-output").split() == rollout.failure.output.split()
    assert "import" in shown(browser, "failure-title")
    assert (steps(browser)["boot"], steps(browser)["end"]) == ("failed", "failed")
    eventually(lambda: "was not put into service: import" in shown(browser, "said"), "it is said")
    rest()
    service.client.reload(wait="cut-over")
    eventually(lambda: not shown(browser, "failure-output"), "the next one has not failed")
    unfold(browser, "#outcomes details:not([hidden])")
    assert "No module named 'nosuch'" in shown(browser, "outcomes")
    eventually(lambda: good not in service.generations(), "the old one has left")


def test_an_abort(browser: Chrome, service: KillableService, rest: Callable[[], int]) -> None:
    """A rollout that boots is called off, by the mouse."""
    old = rest()
    (service.folder / f"hold-{old + 1}.1").touch()
    number = service.client.reload().id
    booting(browser, old + 1)
    press(browser, "Abort")
    assert f"gen {old} serves on" in shown(browser, "dialog-text")
    browser.find_element("id", "dialog-yes").click()
    assert service.settled(number).reason == "called-off"
    eventually(lambda: steps(browser)["end"] == "failed", "it is shown")
    eventually(lambda: service.generations() == [old], "it has left")


def test_no_answer(browser: Chrome, service: KillableService, rest: Callable[[], int]) -> None:
    """While no supervisor answers that is said, what was known stays, and it goes on by itself."""
    old = rest()
    service.die()
    eventually(lambda: "No supervisor answers" in shown(browser, "trouble"), "it is said")
    assert f"gen {old}" in shown(browser, "generations")
    assert browser.execute_script("return document.body.dataset.stale") == "yes"
    service.start()
    eventually(lambda: not shown(browser, "trouble"), "it has come back")
    assert browser.execute_script("return document.body.dataset.stale ?? ''") == ""
    reload = service.client.reload(wait="cut-over")
    eventually(lambda: f"gen {reload.generation}" in shown(browser, "generations"), "it goes on")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
def test_everybody_can_use_it(
    browser: Chrome, service: KillableService, rest: Callable[[], int], scheme: str, size: tuple[int, int]
) -> None:
    """There is nothing that axe finds, at rest and in a rollout with a question open; the page fits the window."""
    old = rest()
    source = (resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
    resize(browser, size, scheme)
    browser.execute_script(source)
    wide = "return [document.documentElement.scrollWidth, innerWidth]"
    eventually(lambda: not shown(browser, "plots-none"), "there are figures")
    browser.execute_script("document.getElementById('numbers').open = true")
    assert browser.execute_async_script(AXE, RULES) == []
    inner, outer = browser.execute_script(wide)
    assert inner <= outer
    browser.execute_script("document.getElementById('numbers').open = false")
    (service.folder / f"hold-{old + 1}.1").touch()
    service.client.reload()
    booting(browser, old + 1)
    press(browser, "Abort")
    assert browser.execute_async_script(AXE, RULES) == []
    inner, outer = browser.execute_script(wide)
    assert inner <= outer
    browser.find_element("id", "dialog-no").click()
    rest()


def test_plots(browser: Chrome, service: KillableService, rest: Callable[[], int]) -> None:
    """Each says in words what it shows; by the keyboard point after point is read out; cut-overs are marked."""
    number = rest()
    resize(browser, WIDE)

    def plots() -> list[Any]:
        return browser.find_elements("css selector", ".plot svg")

    def labelled() -> bool:
        labels = [str(one.get_attribute("aria-label")) for one in plots()]
        return len(labels) == 4 and all(
            re.search(rf"(at most .*, last|none\.) .*gen {number}\b", label) for label in labels
        )

    eventually(labelled, "the cut-over is in what is said of each plot")
    eventually(lambda: len(service.client.series().points) > 2, "there are some points")
    cuts = eventually(lambda: browser.find_elements("css selector", ".plot:first-child .cut"), "cut-overs")
    assert 1 <= len(cuts) <= len(service.client.series().cut_overs)
    assert any(f"gen {number}" in cut.text for cut in cuts)
    plots()[0].send_keys(HOME)
    first = browser.find_element("css selector", ".readout").text
    assert re.fullmatch(r"\d\d:\d\d:\d\d: requests .*/s, errors .*/s", first)
    moved = "return document.querySelector('.readout').textContent"
    plots()[0].send_keys(RIGHT)
    eventually(lambda: browser.execute_script(moved) != first, "the next one")
    browser.execute_script("document.activeElement.blur()")


def test_events_are_filtered(browser: Chrome, service: KillableService, rest: Callable[[], int]) -> None:
    """Those that have the text are shown, and the others when it is taken back."""
    service.client.reload(wait="cut-over")
    rest()
    everything = len(browser.find_elements("css selector", "#events li"))
    box = browser.find_element("id", "filter")
    box.send_keys("post /V1")
    eventually(lambda: 0 < len(browser.find_elements("css selector", "#events li")) < everything, "fewer are shown")
    assert all("POST /v1" in one.text for one in browser.find_elements("css selector", "#events li"))
    box.clear()
    eventually(lambda: len(browser.find_elements("css selector", "#events li")) >= everything, "all are shown")


def test_nothing_leaves_this_host(browser: Chrome, page: Dashboard) -> None:
    """All that the page asks for is its own; nothing in the console is wrong; its key is nowhere."""
    browser.refresh()
    eventually(lambda: shown(browser, "facts"), "it goes on with the token of this tab")
    asked = requested(browser)
    assert {url for url in asked if not url.startswith(page.url)} == set()
    assert f"{page.url}api/stream" in asked
    assert complaints(browser) == []
    assert page.key not in browser.current_url


def test_a_used_address(browser: Chrome, page: Dashboard) -> None:
    """It says what is to be done; so does one of a dashboard that has ended."""
    browser.switch_to.new_window("tab")
    browser.get(page.address)
    eventually(lambda: "Run stillup dashboard again" in shown(browser, "ended"), "it says so")
    assert (buttons(browser), shown(browser, "generations")) == ([], "")
    browser.close()
    browser.switch_to.window(browser.window_handles[0])


def test_a_dashboard_that_ends(browser: Chrome, service: KillableService) -> None:
    """The page says so, and keeps what was known."""
    with dashboard(service.runtime) as other:
        opened(browser, other)
    eventually(lambda: "'stillup dashboard' may have ended" in shown(browser, "trouble"), "it is said")
    assert "gen" in shown(browser, "generations")
