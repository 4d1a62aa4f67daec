"""What a caller that waits leaves behind when its client hangs up, and what is made when it is first asked for."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import msgspec
import pytest

from stillup import __version__
from stillup.core.access import Principal
from stillup.core.caller_limits import Limits
from stillup.core.events import Event, Exited, ReloadAsked, ScaleAsked, StopAsked
from stillup.core.model import Fleet
from stillup.core.policy import Policy
from stillup.core.states import RolloutState, WorkerState
from stillup.daemon.control import handlers as handlers_module
from stillup.daemon.control import responses
from stillup.daemon.control.awaited import probation_left, reached, scaled
from stillup.daemon.control.handlers import Handlers
from stillup.daemon.control.request_limits import LastingRequests
from stillup.errors import Refused
from stillup.wire import fleet_views
from stillup.wire.openapi import openapi
from stillup.wire.problem_types import PROBLEM_TYPES
from tests.asgi.event_loops import until
from tests.core.story import OLD, Story, serving
from tests.daemon.example_engines import engine_of


class _Request:
    """A request whose client leaves when it is told to."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, str]:
        await self.left.wait()
        return {"type": "http.disconnect"}


class _Call:
    def __init__(self) -> None:
        self.request = _Request()
        self.principal = Principal(0, 0, 0)


async def test_a_caller_that_leaves_while_it_waits_leaves_nothing() -> None:
    """Of a hundred callers who wait for what never comes and then leave, neither a watcher nor a task stays."""
    engine = engine_of(Fleet())
    handlers = Handlers.__new__(Handlers)  # waiting needs nothing else of it
    handlers._engine = engine
    handlers._lasting = LastingRequests(Limits(lasting=100))
    calls = [_Call() for _ in range(100)]
    waiting = [asyncio.ensure_future(handlers._until(cast("Any", call), lambda _: False)) for call in calls]
    await until(lambda: len(engine._watchers) == 100)
    for call in calls:
        call.request.left.set()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(end, Refused) for end in ends)
    await until(lambda: len(asyncio.all_tasks()) == 1)
    assert not engine._watchers


def _waiting(fleet: Fleet) -> Handlers:
    """Handlers that can wait for what becomes of a fleet."""
    handlers = Handlers.__new__(Handlers)
    handlers._engine = engine_of(fleet)
    handlers._lasting = LastingRequests(Limits(lasting=100))
    return handlers


async def _probation_of(story: Story) -> tuple[Handlers, asyncio.Future[Fleet]]:
    handlers = _waiting(story.fleet)
    call = cast("Any", _Call())
    waiting = asyncio.ensure_future(
        handlers._until(call, reached(2, "probation"), lambda fleet: probation_left(fleet, 2))
    )
    await until(lambda: handlers._engine._watchers)
    return handlers, waiting


def _reloading(probation: float) -> Story:
    """The workers of generation 2 are about to serve."""
    story = serving(1, Policy(probation=probation))
    story.reload()
    story.ready(2)
    story.now = asyncio.get_running_loop().time()
    return story


async def test_a_probation_that_is_waited_for_ends_with_its_time() -> None:
    """Nothing happens then: the fleet stays as it is, and the answer comes all the same, once there was a cut-over."""
    story = _reloading(0.1)
    handlers, waiting = await _probation_of(story)
    story.serve(2)
    handlers._engine._become(story.fleet, None)
    fleet = await asyncio.wait_for(waiting, 20)
    assert asyncio.get_running_loop().time() >= story.now + 0.1
    assert fleet is story.fleet


async def test_a_probation_that_is_waited_for_ends_with_a_crash() -> None:
    """The answer comes with the rollback, and not when the time is over."""
    story = _reloading(100.0)
    handlers, waiting = await _probation_of(story)
    story.serve(2)
    handlers._engine._become(story.fleet, None)
    story.tell(Exited(2, "exited 1"), Exited(3, "exited 1"))
    handlers._engine._become(story.fleet, None)
    rollout = (await asyncio.wait_for(waiting, 20)).rollout(2)
    assert rollout is not None
    assert rollout.state is RolloutState.ROLLED_BACK


@pytest.mark.parametrize(
    ("event", "status", "code", "says"),
    [
        (StopAsked("test"), 503, "stopping", "the service was stopped in its probation"),
        (ReloadAsked(OLD, "test"), 409, "superseded", "another took its place in its probation"),
    ],
)
async def test_a_probation_that_is_waited_for_says_what_ended_it(
    event: Event, status: int, code: str, says: str
) -> None:
    """A stop, after which nothing serves, or a later rollout."""
    story = _reloading(100.0)
    story.serve(2)
    story.tell(event)
    story.ready(*(worker.serial for worker in story.fleet.workers.values() if worker.state is WorkerState.SPAWNED))
    story.serve(*(worker.serial for worker in story.fleet.workers.values() if worker.state is WorkerState.ACCEPTING))
    rollout = story.rollout(2)
    answer = responses.probation_failed(fleet_views.rollout(story.fleet, rollout, story.now), "/v1/rollouts/2")
    problem = msgspec.json.decode(bytes(answer.body))
    assert (answer.status_code, problem["type"]) == (status, PROBLEM_TYPES[code].urn)
    assert problem["detail"] == f"generation 2 does not serve any more: {says}"


async def test_a_scaling_that_is_waited_for_until_it_is_drained() -> None:
    """Those beyond the number take nothing new at once, and leave when they have finished."""
    story = serving(2)
    story.tell(ScaleAsked(1))
    assert (scaled(1, "true")(story.fleet), scaled(1, "drained")(story.fleet)) == (True, False)
    story.exit(2)
    assert scaled(1, "drained")(story.fleet)


async def test_the_description_is_made_once_and_not_in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """``/v1/openapi.json`` is made in a thread when it is first asked for: that takes 40 ms, and few ask."""
    makers = []

    def make(version: str) -> dict[str, Any]:
        makers.append(threading.current_thread())
        return openapi(version)

    monkeypatch.setattr(handlers_module, "openapi", make)
    nothing = cast("Any", None)
    handlers = Handlers(
        nothing,
        nothing,
        nothing,
        nothing,
        describe=nothing,
        custody=nothing,
        trace=nothing,
        history=nothing,
        figures=nothing,
        series=nothing,
        listener_files=nothing,
    )
    assert makers == []
    answers = [await handlers.all["openapi"](nothing) for _ in range(2)]
    assert len(makers) == 1
    assert makers[0] is not threading.main_thread()
    whole = msgspec.json.decode(msgspec.json.encode(openapi(__version__)))
    assert [msgspec.json.decode(answer.body) for answer in answers] == [whole, whole]
