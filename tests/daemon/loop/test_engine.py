"""The engine's fleet is made by its decisions alone, and callers are told what came of theirs."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from stillup.core.commands import Announce, BeginLeading, Command, LetHookRun, RunHook
from stillup.core.events import (
    AbortAsked,
    HeartbeatsDue,
    HookStarted,
    ParkingLost,
    ReloadAsked,
    Reported,
    StopAsked,
)
from stillup.core.hook_settings import Hooks
from stillup.core.model import Fleet
from stillup.core.policy import Policy
from stillup.core.rebuild import first_fleet
from stillup.core.term import Term
from stillup.core.values import replace
from stillup.core.worker_figures import Leadership, WorkerFigures
from stillup.daemon.loop.engine import Engine
from stillup.daemon.loop.event_queue import EventQueue
from stillup.daemon.state.writer_thread import SLOW
from stillup.errors import Refused
from tests.core.story import NEW, serving
from tests.daemon.example_engines import EFFECTS, RECORD_WRITER, engine_of


def test_nothing_but_a_decision_sets_the_fleet() -> None:
    """It can be read only."""
    engine = engine_of(serving(1).fleet)
    with pytest.raises(AttributeError):
        engine.fleet = serving(2).fleet  # type: ignore[misc]


async def test_parking_that_is_lost_is_an_event() -> None:
    """The policy of the fleet follows it; start-up submits it behind the first events."""
    story = serving(1)
    engine = engine_of(first_fleet(story.fleet.policy, 1))
    engine.submit(ParkingLost())
    running = asyncio.create_task(engine.run(EFFECTS))
    await engine.ask(ReloadAsked(NEW, "start"))
    assert not engine.fleet.policy.parks
    running.cancel()


async def test_a_caller_hears_why_it_is_refused() -> None:
    """And the fleet is what it was."""
    engine = engine_of(serving(1).fleet)
    before = engine.fleet
    running = asyncio.create_task(engine.run(EFFECTS))
    with pytest.raises(Refused):
        await engine.ask(AbortAsked("nothing is under way"))
    assert engine.fleet is before
    running.cancel()


async def test_what_is_merely_heard_is_told_too() -> None:
    """Nothing is written down for a report, and whoever counts hears of it all the same."""
    story, record = serving(1), Behind()
    queue = EventQueue(record)
    told: list[tuple[Fleet, Fleet]] = []
    engine = Engine(story.fleet, queue, record, lambda *fleets: told.append(fleets))
    running = asyncio.create_task(engine.run(EFFECTS))
    engine.submit(Reported(1, WorkerFigures(requests=1)))
    await queue.turn()
    assert [(one.workers[1].figures.requests, other.workers[1].figures.requests) for one, other in told] == [(0, 1)]
    assert record.saved == []
    running.cancel()


class Behind:
    """A record that is behind until the disk answers, and what was written on it."""

    def __init__(self) -> None:
        self.trouble = SLOW
        self.saved: list[Fleet] = []

    async def save(self, fleet: Fleet, *, asked: bool) -> str:
        self.saved.append(fleet)
        return self.trouble

    async def caught_up(self, _: float) -> bool:
        return True


class Performed:
    """The commands that were performed, in their order."""

    def __init__(self) -> None:
        self.commands: list[Command] = []

    def perform(self, command: Command) -> None:
        if isinstance(command, BeginLeading | LetHookRun | RunHook | Announce):
            self.commands.append(command)


def wants(serial: int, *, let_go: int = 0) -> Reported:
    """Says that it wants to lead, or that it did."""
    return Reported(serial, WorkerFigures(leadership=Leadership(wants=not let_go, let_go=let_go)))


async def test_what_must_not_be_begun_twice_waits_for_the_record() -> None:
    """Nobody is told to lead, and no hook is let run, by a supervisor whose successor would not know."""
    fleet = replace(serving(1).fleet, policy=Policy(hooks=Hooks(before=("true",))))
    record, performed = Behind(), Performed()
    queue = EventQueue(record)
    engine = Engine(fleet, queue, record)
    running = asyncio.create_task(engine.run(performed))
    record.trouble = ""
    await engine.ask(ReloadAsked(NEW, "test"))
    record.trouble = SLOW
    engine.submit(wants(1))
    engine.submit(HookStarted(1, 900, 5))
    await queue.turn()
    assert {type(command) for command in performed.commands} == {Announce, RunHook}, "all else goes on"
    assert engine.fleet.term.worker == 1
    record.trouble = ""
    engine.submit(HeartbeatsDue(asyncio.get_running_loop().time(), late=True))
    await queue.turn()
    assert performed.commands[-2:] == [BeginLeading(1, 1), LetHookRun(1)], "once the record says so, in their order"
    running.cancel()


async def test_a_leader_that_lets_go_is_off_the_record() -> None:
    """Though nothing is done about it, since nobody else wants to lead; what is merely heard is not written."""
    record, performed = Behind(), Performed()
    record.trouble = ""
    queue = EventQueue(record)
    engine = Engine(replace(serving(1).fleet, term=Term(1, 1, began=0.0)), queue, record)
    running = asyncio.create_task(engine.run(performed))
    engine.submit(wants(1))
    await queue.turn()
    assert record.saved == []
    engine.submit(wants(1, let_go=1))
    await queue.turn()
    assert [fleet.term.worker for fleet in record.saved] == [None]
    assert performed.commands == []
    running.cancel()


async def test_what_is_submitted_before_there_is_an_engine_waits() -> None:
    """In its order; a turn ends behind it, and that a stop was asked for is known at once."""
    queue = EventQueue(RECORD_WRITER)
    first, second = ParkingLost(), StopAsked("test")
    queue.submit(first)
    assert not queue.asked_to_stop
    queue.submit(second)
    assert queue.asked_to_stop
    turn = asyncio.create_task(queue.turn())
    await asyncio.sleep(0)
    assert [(await queue.next())[0] for _ in range(3)] == [first, second, None]
    turn.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await turn


async def test_nobody_waits_for_an_engine_that_has_ended() -> None:
    """Who has asked, and who asks later, is told that the service has stopped."""
    queue = EventQueue(RECORD_WRITER)
    waits = asyncio.create_task(queue.ask(ReloadAsked(NEW, "in time")))
    turn = asyncio.create_task(queue.turn())
    await asyncio.sleep(0)
    queue.end()
    with pytest.raises(Refused, match="has stopped"):
        await waits
    with pytest.raises(asyncio.CancelledError):
        await turn
    with pytest.raises(Refused, match="has stopped"):
        await queue.ask(ReloadAsked(NEW, "too late"))
