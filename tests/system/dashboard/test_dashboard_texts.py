"""Whatever the service says in whatever text, the page shows it as text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from stillup.wire.api_shapes import RolloutView
from tests.client import hostile_supervisor as hostile
from tests.client.hostile_supervisor import hostile_supervisor
from tests.system.dashboard.dashboard_page import buttons, complaints, dashboard, opened, press, requested, shown
from tests.system.harness import eventually

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.xdist_group("dashboard")

MARKUP = """<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>
</pre></script><svg onload="document.title='owned'"><style>*{display:none}</style>
<a href="javascript:1">"'`&amp;\u202e"""
MAY = """
const [text, done] = arguments;
const may = ["reload", "rollback", "scale", "abort", "promote"];
const hello = { name: text, remote: text, whoami: { role: text, may }, families: {} };
import("/main.js").then(({ feed }) => feed({ hello })).then(done);
"""
"""Has the page think that we may do everything: to a supervisor all of whose texts are one we may do nothing."""
ROLLOUTS: list[dict[str, Any]] = [
    {"outcome": "aborted", "state": "aborted"},
    {"outcome": None, "state": "watching", "strategy": "canary"},
    {"outcome": "succeeded", "state": "draining"},
]


@pytest.mark.parametrize("rollout", ROLLOUTS, ids=lambda one: one["state"])
def test_texts_are_no_markup(
    browser: Chrome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rollout: dict[str, Any]
) -> None:
    """No element comes of them, nothing is run or asked for, and marks of direction are written out."""
    monkeypatch.setattr(hostile, "ATTACK", MARKUP)
    view = hostile.hostile(RolloutView)
    status = {"rollout": msgspec.structs.replace(view, **rollout)}
    with hostile_supervisor(tmp_path, status=status), dashboard(tmp_path) as page:
        browser.get("about:blank")  # the page before asks its own dashboard again and again
        requested(browser)
        complaints(browser)
        opened(browser, page)
        eventually(lambda: "<img src=x" in shown(browser, "events"), "events are shown")
        assert "<img src=x" in shown(browser, "name")
        assert "<script>" in shown(browser, "generations")
        assert "\\u{202e}" in shown(browser, "rollout-what")
        if rollout["state"] == "aborted":
            assert "<svg onload" in shown(browser, "failure-output")
        browser.execute_async_script(MAY, MARKUP)
        eventually(lambda: "Reload" in buttons(browser), "the buttons are there")
        press(browser, "Reload")
        browser.find_element("id", "dialog-no").click()
        found = browser.find_elements("css selector", "img, script:not([src='main.js']), style, a, iframe, [onerror]")
        assert found == []
        assert "owned" in shown(browser, "name")
        assert browser.title != "owned"
        assert {url for url in requested(browser) if not url.startswith(page.url)} == set()
        assert complaints(browser) == []
