"""Which worker leads: of all workers of all generations at most one, for what must not run twice.

1. A term begins with the order to lead. The next one begins when who leads has said that it has let go of that one, or
   its process has ended; so at most one worker leads, whatever the others say.
2. Told to lead is a worker that wants to, and stays: it serves, in the generation that serves, and is not to be
   replaced. Of those the one that has never led or led longest ago, then the lowest slot. In a rollout one of the new
   generation leads before its cut-over only where none of the old one is left that could, and none of a canary at all.
3. Who leads does so until it lets go by itself, or is told to leave, or to pause: that tells it to let go. It has
   ``Policy.leader_timeout`` seconds, and is killed then, as soon as another could lead.
4. Once a stop has begun nobody is told to lead any more, and nobody is killed to make room.
5. Two terms begin LEAST_TERM seconds apart: who lets go again and again costs others little. A term that began since
   the one before was given up unasked is not announced, so nobody's history is made of such.
6. The lock that a leader holds is the kernel's word against a worker's: who has let go and holds it all the same is
   killed.
7. Who comes back and says that it leads is believed if nobody else was told to: the record is not behind, but it may be
   lost. Otherwise it drains, and lets go by that.
"""

from __future__ import annotations

from typing import Final

from stillup.core import orders
from stillup.core.commands import BeginLeading
from stillup.core.events import LeaderLockKept
from stillup.core.lifecycle import UP
from stillup.core.model import Failure, Fleet, Rollout, Worker
from stillup.core.policy import TimerKind
from stillup.core.states import GenerationState, ServiceState, WorkerState
from stillup.core.term import Term
from stillup.core.transition import Transition
from stillup.core.values import replace
from stillup.errors import Refused

MAY_SERVE: Final = frozenset({GenerationState.SERVING, GenerationState.SHIFTING})
"""Generations whose workers may stay, and serve."""
LEAST_TERM: Final = 1.0
"""Seconds from the beginning of a term to that of the next, at least."""


def settle(transition: Transition) -> None:
    """End the term that is over, see that who is to let go does, and begin the next term; after each decision."""
    term = transition.fleet.term
    if term.worker is not None:
        leader = transition.fleet.workers.get(term.worker)
        if leader is None:
            _end(transition, term, given_up=False)
        elif leader.figures.leadership.let_go == term.number:
            _end(transition, term, given_up=not leader.state.lets_go)
        elif leader.state.lets_go and transition.fleet.state in UP:
            _see_off(transition, term, leader)
    if transition.fleet.term.worker is None:
        _begin_next(transition, transition.fleet.term)


def able(fleet: Fleet) -> Worker | None:
    """Who would be told to lead, if nobody did."""
    if fleet.state not in UP:
        return None
    plan = fleet.plan
    tried = plan.generation if plan is not None and _is_unproven(plan) else None
    may = (
        (generation.state is not GenerationState.SERVING, worker.led, worker.slot, worker)
        for generation in fleet.generations.values()
        if generation.state in MAY_SERVE and generation.id != tried
        for worker in fleet.of(generation.id)
        if _may_lead(worker, fleet.term)
    )
    return min(may, key=lambda one: one[:-1], default=(None,))[-1]


def take_over(transition: Transition) -> None:
    """Go on with the term on record, whose leader has as long as ever to let go; and wait for the next one anew."""
    transition.fleet = replace(transition.fleet, term=replace(transition.fleet.term, due=None))
    _wait_for_next(transition)


def come_back(transition: Transition, worker: Worker, *, leads: bool) -> None:
    """Tell who leads once more: it has no lock of ours yet, or the order was lost with another supervisor.

    One that says that it leads does so where nobody else was told to: another supervisor's record may have been lost.
    """
    term = transition.fleet.term
    if leads and term.worker is None and worker.figures.leadership.let_go <= term.number:
        term = Term(term.number + 1, worker.serial, began=transition.now)
        transition.put(replace(worker, led=term.number))
        transition.fleet = replace(transition.fleet, term=term)
    if term.worker == worker.serial:
        transition.order(BeginLeading(worker.serial, term.number))


def keeps_lock(transition: Transition, event: LeaderLockKept) -> None:
    """Kill a worker that has let go by its own word, or was never told to lead, and holds the lock.

    Raises:
        Refused: it leads, or is no worker of ours, or was killed already.
    """
    keeper = next((worker for worker in transition.fleet.workers.values() if worker.pid == event.pid), None)
    if keeper is None or keeper.serial == transition.fleet.term.worker or keeper.state is WorkerState.KILLED:
        raise Refused(f"pid {event.pid} may have the leader's lock, or has ended", code="out-of-order")
    transition.announce("leader.killed", worker=keeper.name, pid=keeper.pid, seconds=None)
    orders.kill(transition, keeper)
    failure = Failure("leader", "it held the leader's lock, and was not to lead")
    transition.put(replace(transition.worker(keeper.serial), failure=failure))


def _is_unproven(plan: Rollout) -> bool:
    """Whether a rollout brings a canary that was not passed, or takes one back."""
    return plan.strategy.kind.watches and not (plan.watch and plan.watch.passed)


def _may_lead(worker: Worker, before: Term) -> bool:
    """Whether a worker of the generation that serves wants to lead, and stays; not if it let go of what is to come."""
    said = worker.figures.leadership
    stays = worker.state is WorkerState.SERVING and not worker.recycle
    return stays and said.wants and said.let_go <= before.number


def _end(transition: Transition, term: Term, *, given_up: bool) -> None:
    transition.fleet = replace(transition.fleet, term=replace(term, worker=None, due=None, given_up=given_up))
    _wait_for_next(transition)


def _wait_for_next(transition: Transition) -> None:
    """Set the timer at which the next term may begin, if that is not now; a service that starts may be up by then."""
    if transition.fleet.state in {*UP, ServiceState.STARTING} and (wait := _wait(transition)) > 0:
        transition.set_timer(TimerKind.LEADER, 0, wait)


def _wait(transition: Transition) -> float:
    """Seconds until the next term may begin."""
    began = transition.fleet.term.began
    return began + LEAST_TERM - transition.now if began is not None else 0.0


def _see_off(transition: Transition, term: Term, leader: Worker) -> None:
    """See that a leader which is on its way out lets go in time."""
    fleet = transition.fleet
    timeout = fleet.policy.leader_timeout
    if term.due is None:
        transition.fleet = replace(fleet, term=replace(term, due=transition.now + timeout))
        transition.set_timer(TimerKind.LEADER, leader.serial, timeout)
    elif transition.now >= term.due and leader.state is not WorkerState.KILLED and able(fleet) is not None:
        transition.announce("leader.killed", worker=leader.name, pid=leader.pid, seconds=timeout)
        orders.kill(transition, leader)


def _begin_next(transition: Transition, before: Term) -> None:
    """Tell the next worker to lead, if there is one and it is time."""
    leader = able(transition.fleet)
    if leader is None or _wait(transition) > 0:
        return
    term = Term(before.number + 1, leader.serial, began=transition.now)
    transition.put(replace(leader, led=term.number))
    transition.fleet = replace(transition.fleet, term=term)
    transition.order(BeginLeading(leader.serial, term.number))
    if not before.given_up:
        transition.announce("leader.told", worker=leader.name, pid=leader.pid, term=term.number)
