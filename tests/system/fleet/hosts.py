"""Three hosts, each with a systemd of its own and `stillup@shop`, in one network; and what clients notice."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.load import Mix, Report
from tests.system.fleet.balancer import ADDRESS
from tests.system.fleet.clients import under_load
from tests.system.fleet.network import Network, network
from tests.system.manager.booted_systemd import Booted
from tests.system.manager.installed_units import Shop

MIX = Mix(fresh=4, keepalive=8, slow=3, upload=2, think=0.02)
SETTINGS = {"bind": ["0.0.0.0:8000"], "admin-bind": "0.0.0.0:9464", "agent-bind": "0.0.0.0:9777", "cordon-status": 404}


class Fleet:
    """Three of them; their names are those of HAProxy's servers."""

    def __init__(self, network: Network, shops: dict[str, Shop]) -> None:
        self.network = network
        self.shops = shops
        self.closed: Counter[str] = Counter()
        """How connections ended under the last load, and requests that failed."""

    def each(self, do: Callable[[Shop], object]) -> Callable[[], None]:
        """Do it on one host after another."""

        def on_each() -> None:
            for shop in self.shops.values():
                do(shop)

        return on_each

    def under_load(self, happens: Callable[[], None], mix: Mix = MIX) -> Report:
        """Let it happen while clients ask the balancer; what they noticed."""
        report, self.closed = under_load(self.network, ADDRESS, mix, happens)
        return report


@contextlib.contextmanager
def fleet(
    app: str = "benchmarks.app:app", prepare: Callable[[Path], None] | None = None, **settings: object
) -> Iterator[Fleet]:
    """Have it; the hosts are 10.0.0.1 to 10.0.0.3. ``prepare`` is told the root directory of each before it serves."""
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network())
        shops = {}
        for number, name in enumerate("abc", 1):
            booted = stack.enter_context(Booted())
            net.connect(booted.pid, f"10.0.0.{number}")
            if prepare is not None:
                prepare(Path(f"/proc/{booted.pid}/root"))
            shops[name] = stack.enter_context(Shop(booted, app, **{**SETTINGS, **settings}))
        yield Fleet(net, shops)


@contextlib.contextmanager
def stop_delay(hosts: Fleet, seconds: float) -> Iterator[None]:
    """Have each stop announce itself for so long, from a restart on."""
    try:
        _delay_stops(hosts, seconds)
        yield
    finally:
        _delay_stops(hosts, 0)


def _delay_stops(hosts: Fleet, seconds: float) -> None:
    for shop in hosts.shops.values():
        shop.configure(**{"stop-delay": seconds})
        shop.restart()
