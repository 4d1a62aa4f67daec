"""Reloads, restarts and kills in a real systemd, under load from inside its network namespace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from benchmarks.connection import Target
from benchmarks.drop import demand_nothing_lost
from benchmarks.load import MIXED, Load, Mix, Pace, Report
from tests.system.harness import eventually
from tests.system.manager.booted_systemd import Booted
from tests.system.manager.installed_units import Shop, in_network_of
from tests.system.sessions.websocket_peer import WebSocketPeer

MIX = replace(MIXED, think=0.05, pace=Pace(slow=0.2, upload=0.25, stream=0.3))

COUNTING = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from stillup.app import resume

async def count(websocket):
    session = await resume(websocket, {"count": 0})
    async for text in session.iter_text():
        session.state["count"] += 1
        await session.send_text(f"{session.state['count']} {text}")

app = Starlette(routes=[
    Route("/healthz", lambda request: PlainTextResponse("ok")),
    WebSocketRoute("/echo", count),
])
"""


def nothing_lost(
    booted: Booted, happens: Callable[[], None], times: int = 1, address: str = "127.0.0.1:8000", mix: Mix = MIX
) -> Report:
    """Let it happen so many times while every kind of client asks: none may notice."""
    reports: list[Report] = []

    async def work() -> None:
        async with Load(Target.parse(address), mix, seed=1) as load:
            await load.wait_every_client(deadline=20)
            for number in range(times):
                await asyncio.to_thread(happens)
                await load.wait_every_client(deadline=20)
                demand_nothing_lost(f"{happens.__name__} {number + 1}", load.report)
            reports.append(await load.stop(deadline=20))
        demand_nothing_lost("in all", reports[0])

    in_network_of(booted, lambda: asyncio.run(work()))
    (report,) = reports
    print(f"{happens.__name__} x{times}: {report}", flush=True)
    return report


def test_no_client_notices(booted: Booted) -> None:
    """None of `systemctl reload`, `systemctl restart`, a SIGKILL of the supervisor and an upgrade of stillup itself."""
    shop = Shop(booted)
    shop.hardened()
    shop.upgradable()
    with shop:
        for happens in (shop.reload, shop.restart, shop.kill, shop.upgrade):
            nothing_lost(booted, happens)


def test_a_websocket_goes_on(booted: Booted) -> None:
    """Over all three, on one connection: a restart parks it, with its state, for the workers of the next supervisor."""
    shop = Shop(booted, "counting:app", ws="websockets-sansio")
    shop.install()
    (shop.folder / "counting.py").write_text(COUNTING)

    def talk() -> None:
        with WebSocketPeer("127.0.0.1:8000") as peer:
            for number, happens in enumerate((shop.restart, shop.reload, shop.kill, shop.restart), 1):
                peer.send(peer.text("a"))
                assert peer.receive_text() == f"{number} a"
                happens()
            peer.send(peer.text("b"))
            assert peer.receive_text() == "5 b"

    with shop:
        in_network_of(booted, talk)


def test_a_supervisor_that_is_stuck(booted: Booted) -> None:
    """The watchdog ends it, another takes over; no client notices."""
    shop = Shop(booted)
    shop.drop_in("watchdog.conf", "[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n")

    def stick() -> None:
        pid = shop.show("MainPID")
        booted.run("kill", "-STOP", pid)
        shop.until_another(pid)

    with shop:
        nothing_lost(booted, stick)
        eventually(lambda: "Watchdog timeout" in shop.log(), "it was the watchdog")
