"""What the dashboard takes beside forty workers and a thousand events a second: little, and no more after an hour."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil
import pytest

from tests.client.busy_supervisor import EVENTS, WORKERS, busy_supervisor, event, series, status
from tests.system.dashboard.dashboard_page import Dashboard, dashboard, opened, shown
from tests.system.harness import eventually

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = [pytest.mark.xdist_group("dashboard"), pytest.mark.timeout(240)]

SECONDS = 10.0
MOST_SERVER = 0.05
"""Of a processor, that the dashboard's process takes."""
MOST_RENDERER = 0.15
"""Of a processor, that Chromium's process of the page takes, which draws without a graphics card here."""
HOUR = 3600
ROWS = 200 * 3
"""Nodes of the events that are shown while no flood comes; of one they are fewer."""
HEAP = 1.0
"""MiB by which the page's heap may be larger after an hour."""
FEED = """
const [status, events, series, first, seconds] = said;
const { feed } = await import("/main.js");
for (let second = first; second < first + seconds; second++) {
  const now = JSON.parse(status);
  now.uptime = second;
  for (const one of now.generations[0].workers) {
    one.cpu = second * 0.3;
    one.requests = second * 100;
    one.classes["in-progress"] = 1 + (second % 9);
  }
  feed({ status: now });
  const some = JSON.parse(events);
  for (const [place, one] of some.entries()) {
    one.seq = second * 1000 + place;
    one.text = `${second} ${one.text}`;
  }
  feed({ events: some, skipped: 800 });
  if (second % 5 === 0) feed({ series: JSON.parse(series) });
  if (second % 30 === 0) await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 0)));
}
"""
"""A stream of so many seconds, as fast as it is taken in. It is made in the page: what a driver has sent to the page it
does not let go of."""


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    folder: Path = tmp_path_factory.mktemp("flood")
    with busy_supervisor(folder), dashboard(folder) as page:
        yield page


@pytest.fixture(scope="module", autouse=True)
def _opened(browser: Chrome, flooded: Dashboard) -> None:
    opened(browser, flooded)


def cpu(process: psutil.Process) -> float:
    """Seconds of processor time so far."""
    used = process.cpu_times()
    return float(used.user + used.system)


def test_processors(browser: Chrome, flooded: Dashboard) -> None:
    """A twentieth of one for the process; the browser's own is measured where it draws in software."""
    rows = "return document.querySelectorAll('[data-worker]').length"
    eventually(lambda: browser.execute_script(rows) == WORKERS, "all workers are shown")
    eventually(lambda: "too fast to be shown" in shown(browser, "events-note"), "the flood is shown")
    server = psutil.Process(flooded.process.pid)
    children = psutil.Process(browser.service.process.pid).children(recursive=True)
    renderers = {one: cpu(one) for one in children if "--type=renderer" in one.cmdline()}
    began, before = time.monotonic(), cpu(server)
    newest = shown(browser, "events")
    eventually(lambda: time.monotonic() >= began + SECONDS, "it was watched", SECONDS + 5, longest=1.0)
    seconds = time.monotonic() - began
    taken = (cpu(server) - before) / seconds
    page = max(cpu(one) - was for one, was in renderers.items()) / seconds
    print(f"\ndashboard {taken:.1%} of a processor, page {page:.1%}, at {WORKERS} workers and {EVENTS} events a second")
    assert shown(browser, "events") != newest
    assert taken < MOST_SERVER
    assert page < MOST_RENDERER


def memory(browser: Chrome) -> tuple[float, int]:
    """The page's heap in MiB and its nodes, after all garbage was collected."""
    browser.execute_cdp_cmd("HeapProfiler.enable", {})
    for _ in range(3):
        browser.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    nodes = browser.execute_script("return document.querySelectorAll('*').length")
    browser.execute_cdp_cmd("Performance.enable", {})
    metrics = {one["name"]: one["value"] for one in browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}
    return metrics["JSHeapUsedSize"] / 2**20, int(nodes)


def told(browser: Chrome, first: int, seconds: int) -> None:
    """Have the page told of so many seconds, from second ``first`` on."""
    said = [status(), [msgspec.Raw(event(number)) for number in range(200)], series()]
    body = f"const done = arguments[5]; (async (...said) => {{ {FEED} }})(...arguments).then(done, done);"
    browser.execute_async_script(body, *(msgspec.json.encode(one).decode() for one in said), first, seconds)


def test_memory(browser: Chrome) -> None:
    """After an hour of it the page has no more nodes than before, but for rows of events, and its heap is as large."""
    browser.set_script_timeout(60)
    told(browser, 1000, HOUR // 4)
    heap, nodes = memory(browser)
    told(browser, 2 * HOUR, HOUR)
    heap_after, nodes_after = memory(browser)
    print(f"\nheap {heap:.2f} MiB, after an hour {heap_after:.2f}; {nodes} nodes, after an hour {nodes_after}")
    assert heap_after < heap + HEAP
    assert nodes_after <= nodes + ROWS
