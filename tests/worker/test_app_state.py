"""What an app sees of stillup."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest

from stillup.worker.app_state import Draining, ShutdownFlag, Stillup
from tests.asgi.served_app import App, serving

pytestmark = pytest.mark.usefixtures("loop_factory")


async def test_draining() -> None:
    """``draining`` is false, and whoever awaits it waits, until the drain begins; then it is true for good."""
    draining = Draining()
    first = asyncio.ensure_future(draining._wait())
    await asyncio.sleep(0)
    assert not draining
    assert not first.done()
    draining.begin()
    draining.begin()
    await first
    await draining
    assert draining


async def test_several_wait() -> None:
    """Everybody who waits for the drain is told, and one who gives up waiting takes nothing from the others."""
    draining = Draining()

    async def wait() -> str:
        await draining
        return "told"

    waiting = [asyncio.create_task(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    draining.begin()
    assert await asyncio.gather(*waiting[1:]) == ["told", "told"]


async def test_every_request_has_the_same() -> None:
    """The ``draining`` in a request's state, though the state is a copy, is the worker's own."""
    stillup = Stillup(generation=3, worker=1)
    async with serving(App(), app_state={"stillup": stillup}) as served:
        client = await served.connect()
        await client.ask("/events")
        await served.waits()
        assert served.app.ended == []
        stillup.draining.begin()
        await client.read_to(b"data: bye\n\n")
        assert served.app.ended == ["told"]


def test_each_worker_has_its_own() -> None:
    """Two workers' states do not share what begins."""
    one, two = Stillup(1, 1), Stillup(1, 2)
    one.draining.begin()
    assert not two.draining


def test_it_is_json() -> None:
    """An app that dumps its state, as it can with uvicorn, finds there what it could ask for."""

    async def story() -> None:
        state = {"stillup": Stillup(3, 1), "own": 5}
        assert json.loads(json.dumps(state)) == {
            "stillup": {"generation": 3, "worker": 1, "draining": False, "leader": False},
            "own": 5,
        }
        state["stillup"].draining.begin()  # type: ignore[attr-defined]
        assert json.loads(json.dumps(state))["stillup"]["draining"] is True

    asyncio.run(story())


async def test_who_asks_behind_the_signal_handler() -> None:
    """A library that looks for uvicorn's server there, as sse-starlette does, finds out whether it is to exit.

    The loop's own handler is called all the same.
    """
    loop, heard, flag = asyncio.get_running_loop(), asyncio.Event(), ShutdownFlag()
    before = signal.getsignal(signal.SIGTERM)
    loop.add_signal_handler(signal.SIGTERM, heard.set)
    try:
        flag.install()
        server = signal.getsignal(signal.SIGTERM).__self__  # type: ignore[union-attr]
        assert server.should_exit is False
        flag.should_exit = True
        assert server.should_exit is True
        os.kill(os.getpid(), signal.SIGTERM)
        await heard.wait()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)
