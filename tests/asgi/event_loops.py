"""Runs coroutine tests: each in a loop of its own, with every complaint of the loop a failure; asyncio's in debug mode.

Most of what that finds does not depend on the loop, and uvloop's would cost a third of all that these tests take.
"""

from __future__ import annotations

import asyncio
import asyncio.constants
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest
import uvloop

# It is the most expensive part of debug mode, and there for reading alone.
asyncio.constants.DEBUG_STACK_DEPTH = 1  # type: ignore[misc]
DEADLINE: Final = 60.0
"""Seconds after which a test that waits for an event has failed."""
LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run(
    story: Coroutine[Any, Any, None],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> None:
    """Run one test's coroutine to its end."""
    complaints: list[dict[str, Any]] = []
    with asyncio.Runner(debug=loop_factory is asyncio.new_event_loop, loop_factory=loop_factory) as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        loop.slow_callback_duration = DEADLINE  # a line on stderr, for which a busy machine is enough
        runner.run(_within_deadline(story))
    assert not complaints, complaints


async def _within_deadline(story: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(DEADLINE):
        await story


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until the condition holds."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is looked at has no event to wait for
            await asyncio.sleep(0)  # one turn of the loop, no pause


_OLD_WEBSOCKETS: Final = pytest.mark.filterwarnings(
    "ignore:websockets.legacy is deprecated:DeprecationWarning",
    "ignore:websockets.server.WebSocketServerProtocol is deprecated:DeprecationWarning",
    "ignore:remove second argument of ws_handler:DeprecationWarning",
    "ignore:The `websockets` implementation is deprecated:UserWarning",
)
"""What the older of uvicorn's WebSocket implementations makes Python say; older versions use it by themselves."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let the older WebSocket implementation be old."""
    item.add_marker(_OLD_WEBSOCKETS)


@pytest.fixture(params=list(LOOPS))
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Each event loop that a worker can run on."""
    return LOOPS[request.param]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function, on ``loop_factory`` where it uses that fixture."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    factory: Any = pyfuncitem.funcargs.get("loop_factory", asyncio.new_event_loop)
    run(pyfuncitem.obj(**arguments), factory)
    return True
