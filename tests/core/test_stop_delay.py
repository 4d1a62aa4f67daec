"""A stop that is announced before it begins, and one that is hurried."""

from __future__ import annotations

import pytest

from stillup.core.availability import CORDONED, why_unready
from stillup.core.commands import (
    Announce,
    BeginDrain,
    CloseListeners,
    Exit,
    Kill,
    LeaveStore,
    TellCordon,
    Terminate,
)
from stillup.core.events import CordonAsked, ReexecAsked, ReloadAsked, StopAsked, TimerFired
from stillup.core.policy import Policy, Timer, TimerKind
from stillup.core.rebuild import consistent
from stillup.core.states import RolloutState, ServiceState, WorkerState
from stillup.core.step import step
from stillup.errors import Refused
from tests.core.story import NEW, Story, begin, serving

DELAYED = Policy(stop_delay=10.0, parks=True)
STOP = StopAsked("test")
AGAIN = StopAsked("test", insist=True)
NOW = StopAsked("test", insist=True, now=True)


def announced(policy: Policy = DELAYED) -> Story:
    story = serving(1, policy)
    story.tell(STOP)
    return story


def is_stopping(story: Story) -> bool:
    drains = [order for order in story.orders if isinstance(order, BeginDrain)]
    return story.state() is ServiceState.STOPPING and bool(drains) and all(order.final for order in drains)


def test_it_is_announced_first() -> None:
    """Unready, and still serving; the store is left before the end, so that nobody hangs there. Then it stops."""
    story = announced()
    assert story.orders == [TellCordon(1, on=True), LeaveStore()]
    assert list(story.news) == ["service.stop-delayed"]
    assert (story.state(), why_unready(story.fleet)) == (ServiceState.STOP_DELAY, CORDONED)
    assert consistent(story.fleet)
    assert story.timers[Timer(TimerKind.STOP, 0)] == 70.0
    story.fire(TimerKind.STOP, 0)
    assert is_stopping(story)
    assert CloseListeners() in story.orders
    with pytest.raises(Refused):
        story.tell(TimerFired(Timer(TimerKind.STOP, 0)))


def test_the_time_since_a_cordon_counts() -> None:
    """Who was told ten seconds ago need not be told again."""
    story = serving(1, DELAYED)
    story.tell(CordonAsked("test"))
    story.now += 4.0
    story.tell(STOP)
    assert story.timers[Timer(TimerKind.STOP, 0)] == 70.0
    story = serving(1, DELAYED)
    story.tell(CordonAsked("test"))
    story.now += 12.0
    story.tell(STOP)
    assert is_stopping(story)


@pytest.mark.parametrize("again", [AGAIN, NOW, StopAsked("test", at_once=True)])
def test_who_insists_ends_the_delay(again: StopAsked) -> None:
    """A second TERM, Ctrl-C, `stop --now`."""
    story = announced()
    said = [one.kind for one in step(story.fleet, again, story.now).commands if isinstance(one, Announce)]
    assert said == ["service.stopping", "service.hurried"][: 2 if again.now else 1], "drains have all their time"
    story.tell(again)
    assert is_stopping(story)


def test_who_only_asks_again_waits_with_the_first() -> None:
    """A second `stillup stop`."""
    story = announced()
    story.tell(STOP)
    assert (story.orders, story.state()) == ([], ServiceState.STOP_DELAY)


@pytest.mark.parametrize("at_once", [StopAsked("SIGINT", insist=True, at_once=True), NOW])
def test_it_can_be_skipped(at_once: StopAsked) -> None:
    """By Ctrl-C, and by `stop --now`."""
    story = serving(1, DELAYED)
    story.tell(at_once)
    assert is_stopping(story)


def test_nobody_waits_where_nothing_serves() -> None:
    """There is nobody to whom it could be announced."""
    story = begin(1, DELAYED)
    story.tell(STOP)
    assert story.state() is ServiceState.STOPPING


def test_what_dies_meanwhile_is_replaced_and_what_is_new_refused() -> None:
    """Everything is served on; a rollout is off, and no other begins, be it one that takes a crash back."""
    story = serving(1, DELAYED)
    story.reload()
    story.ready(2)
    story.serve(2)
    story.reload()
    story.tell(STOP)
    assert story.rollout(3).state is RolloutState.ABORTED
    for refused in (ReloadAsked(NEW, "test"), ReexecAsked(), CordonAsked("test", on=False)):
        with pytest.raises(Refused):
            story.tell(refused)
    story.exit(3)
    for serial in (2, 4):
        story.die(serial, age=0.5)
    assert len(story.fleet.rollouts) == 3
    assert story.waiting(2), "its slot is filled later, as at any time"


def test_a_supervisor_that_dies_in_it_has_not_stopped() -> None:
    """It was started again: clients are to be sent again, too."""
    story = announced()
    story.take_over(1)
    assert (story.state(), why_unready(story.fleet)) == (ServiceState.SERVING, "")


def test_a_stop_has_a_budget() -> None:
    """A service manager is to give it the delay, the drain, and some seconds for its end."""
    assert Policy(stop_delay=20.0, stop_timeout=300.0).stop_budget == 325.0


def test_now_hurries_and_a_second_one_kills() -> None:
    """`stop --now` ends what is under way; asked for again it does not wait for that, either."""
    story = serving(1)
    story.tell(NOW)
    assert [type(order) for order in story.orders] == [CloseListeners, BeginDrain, BeginDrain, Terminate]
    story.tell(NOW)
    assert story.orders == [Kill(1)]
    story.exit(1)
    assert story.orders == [Exit(0)]


@pytest.mark.parametrize("policy", [Policy(), DELAYED], ids=["at once", "in its delay"])
def test_now_kills_nobody_whose_app_may_have_started(policy: Policy) -> None:
    """Workers that boot, or are READY, shut their app down; the second one kills them, and those that drained."""
    story = serving(2, policy)
    story.reload()
    story.ready(3)
    if policy.stop_delay:
        story.tell(STOP)
    story.tell(NOW)
    assert {worker.state for worker in story.fleet.workers.values()} == {WorkerState.STOPPING}
    story.tell(NOW)
    assert story.orders == [Kill(1), Kill(2), Kill(3), Kill(4)]
