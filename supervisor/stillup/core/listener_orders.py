"""Holding listeners, and letting go of them: what ``core.listeners`` says is wanted is what is held."""

from __future__ import annotations

from stillup.core import listeners
from stillup.core.commands import KeepListeners
from stillup.core.lifecycle import ENDING, HOLDS_CONNECTIONS
from stillup.core.model import Release
from stillup.core.transition import Transition
from stillup.core.values import replace


def hold(transition: Transition, release: Release) -> None:
    """Hold what a release listens on, which has been bound."""
    held = transition.fleet.listeners
    new = tuple(key for key in release.binds if key not in held)
    if new:
        transition.fleet = replace(transition.fleet, listeners=(*held, *new))


def settle(transition: Transition) -> None:
    """Let go of what nobody wants any more. A stop closes all that is left."""
    fleet = transition.fleet
    if fleet.state in ENDING or not (unwanted := set(fleet.listeners) - listeners.wanted(fleet, transition.now)):
        return
    kept = tuple(key for key in fleet.listeners if key not in unwanted)
    transition.fleet = replace(fleet, listeners=kept)
    told = []
    for worker in fleet.workers.values():
        if not unwanted.isdisjoint(worker.listeners):
            rest = tuple(key for key in worker.listeners if key not in unwanted)
            transition.put(replace(worker, listeners=rest))
            if worker.state in HOLDS_CONNECTIONS:
                told.append(worker.serial)
    transition.order(KeepListeners(kept, tuple(told)))


def remind(transition: Transition, serial: int) -> None:
    """Tell a worker that has come back what is held: it may not have heard it from a supervisor before."""
    if transition.fleet.listeners:
        transition.order(KeepListeners(transition.fleet.listeners, (serial,)))
