"""Three hosts behind a real HAProxy that tries nothing twice: what it costs to reload, restart and stop one of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.load import Mix, Pace, Report
from tests.system.fleet.balancer import AGENT, HAPROXY, HTTPCHK, NGINX, haproxy, nginx
from tests.system.fleet.hosts import MIX, Fleet, fleet, stop_delay
from tests.system.harness import FULL
from tests.system.manager.booted_systemd import why_not
from tests.system.manager.installed_units import Shop

pytestmark = [
    pytest.mark.skipif(not FULL, reason="takes minutes: make prove-fleet"),
    pytest.mark.skipif(HAPROXY is None or bool(why_not()), reason=f"needs HAProxy, and a systemd: {why_not()}"),
    pytest.mark.timeout(600),
]

DELAY = 2
"""Seconds of --stop-delay by the rule: fall x inter + timeout check is 1.4, agent-inter + timeout check 1.2."""
STOPS = 20
ANSWERING = replace(MIX, slow=6, pace=Pace(slow=5.0))
"""With requests that take 5 s, so that some are in progress at any stop."""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Fleet]:
    """Three of them."""
    with fleet() as hosts:
        yield hosts


def nothing_is_lost(report: Report) -> None:
    assert report.failed == 0, report


def stop_and_start(shop: Shop) -> None:
    """Stop it, and have it serve again."""
    shop.booted.systemctl("stop", shop.unit)
    shop.booted.systemctl("start", shop.unit)


def test_a_rolling_reload_and_restart(hosts: Fleet, tmp_path: Path) -> None:
    """Host by host; and a release that is rejected on one of them."""
    with haproxy(hosts.network, tmp_path / "lb", HTTPCHK):
        nothing_is_lost(hosts.under_load(hosts.each(Shop.reload)))
        nothing_is_lost(hosts.under_load(hosts.each(Shop.restart)))

        def reject() -> None:
            shop = hosts.shops["b"]
            shop.configure(app="benchmarks.no_such_app:app")
            done = shop.booted.run("systemctl", "reload", shop.unit)
            assert done.returncode != 0
            shop.configure(app="benchmarks.app:app")

        nothing_is_lost(hosts.under_load(reject))


@pytest.mark.parametrize("mix", [MIX, ANSWERING], ids=["idle", "answering"])
@pytest.mark.parametrize("begins", [HTTPCHK, AGENT], ids=["httpchk", "agent"])
def test_an_announced_stop(hosts: Fleet, tmp_path: Path, begins: str, mix: Mix) -> None:
    """Whoever asks the balancer meanwhile is answered by the others, and who is being answered by that host is."""
    with haproxy(hosts.network, tmp_path / "lb", begins) as balancer, stop_delay(hosts, DELAY):

        def stop() -> None:
            for name, shop in hosts.shops.items():
                stop_and_start(shop)
                balancer.until(name, "UP")

        nothing_is_lost(hosts.under_load(stop, mix))


def test_a_stop_that_is_not_announced(hosts: Fleet, tmp_path: Path) -> None:
    """It loses requests: what is tried above would be noticed."""
    with haproxy(hosts.network, tmp_path / "lb", HTTPCHK) as balancer:
        a = hosts.shops["a"]

        def stop() -> None:
            a.booted.systemctl("stop", a.unit)
            balancer.until("a", "DOWN")
            a.booted.systemctl("start", a.unit)

        assert hosts.under_load(stop).failed > 0


def test_kept_connections_on_the_transport_level(hosts: Fleet, tmp_path: Path) -> None:
    """HAProxy sees no requests there: answers say that they are the last on their connection, and none is reset."""
    with haproxy(hosts.network, tmp_path / "lb", HTTPCHK, mode="tcp") as balancer, stop_delay(hosts, DELAY):

        def stop() -> None:
            for number in range(STOPS):
                name, shop = list(hosts.shops.items())[number % len(hosts.shops)]
                stop_and_start(shop)
                balancer.until(name, "UP")

        begun = time.monotonic()
        nothing_is_lost(hosts.under_load(stop, Mix(keepalive=16, think=0.05)))
        assert set(hosts.closed) == {"the answer says that it closes"}, hosts.closed
        print(f"{STOPS} stops in {time.monotonic() - begun:.0f} s")


@pytest.mark.skipif(NGINX is None, reason="needs nginx")
def test_nginx_in_front(hosts: Fleet, tmp_path: Path) -> None:
    """It tries another host for whom one refuses; and a stop that is announced has it leave before."""
    with nginx(hosts.network, tmp_path / "lb"), stop_delay(hosts, DELAY):
        nothing_is_lost(hosts.under_load(hosts.each(stop_and_start)))
