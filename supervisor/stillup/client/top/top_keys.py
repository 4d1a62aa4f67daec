"""The keys of ``stillup top``: what each asks of the supervisor, and whether it may be asked for now."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from stillup.client.control_client import Client
from stillup.core.lifecycle import LEAVING
from stillup.core.policy import MOST_WORKERS
from stillup.core.states import GenerationState, RolloutState
from stillup.wire.api_shapes import Status

_PENDING: Final = frozenset(str(state) for state in RolloutState if state.pending)
_LEAVING: Final = frozenset(map(str, LEAVING))
_LABELS: Final = {"r": "reload", "b": "roll back", "+": "", "-": "scale", "a": "abort", "p": "promote"}
_OPERATIONS: Final = {
    "r": "reload",
    "b": "rollback",
    "+": "scale",
    "-": "scale",
    "a": "abort",
    "p": "promote",
}


class TopRequest(msgspec.Struct, frozen=True):
    """What is to be asked of the supervisor, once it was answered with y."""

    operation: str
    question: str
    workers: int = 0
    """That are wanted, of ``scale``."""


def offered(status: Status, may: Collection[str]) -> list[str]:
    """The keys for what the role allows, and what makes sense now."""
    rollout = status.rollout
    senseless = set()
    if rollout is None or rollout.state not in _PENDING:
        senseless.add("a")
    if rollout is None or rollout.state != RolloutState.WATCHING:
        senseless.add("p")
    return [key for key, operation in _OPERATIONS.items() if operation in may and key not in senseless]


def keys_line(keys: Collection[str], *, events: bool) -> str:
    """What the last line says; ``events``: whether these fill the screen."""
    said = [f"q quit  e {'workers' if events else 'events'}"]
    said += [f"{key} {label}" if label else key for key, label in _LABELS.items() if key in keys]
    return " " + "  ".join(said).replace("+  - ", "+ - ")


def request(key: str, status: Status) -> TopRequest | None:
    """What that key asks for; None for one that asks for nothing."""
    name = status.name
    rollout = status.rollout
    match key:
        case "r":
            return TopRequest("reload", f"reload {name}? y/n")
        case "b":
            return TopRequest("rollback", f"roll {name} back to the release before? y/n")
        case "+" | "-":
            before = wanted(status)
            workers = min(MOST_WORKERS, max(1, before + (1 if key == "+" else -1)))
            return TopRequest("scale", f"scale {name} from {before} to {workers}? y/n", workers)
        case "a":
            which = f" to gen {rollout.generation}" if rollout is not None and rollout.generation is not None else ""
            return TopRequest("abort", f"abort the rollout{which}? y/n")
        case "p":
            return TopRequest("promote", "pass the canary, whatever its figures are? y/n")
        case _:
            return None


def wanted(status: Status) -> int:
    """How many workers are wanted: the slots of what serves, be they filled or not."""
    serving = next((one for one in status.generations if one.state == GenerationState.SERVING), None)
    if serving is None:
        return 1
    slots = {worker.id for worker in serving.workers if worker.state not in _LEAVING}
    return len(slots | {vacancy.id for vacancy in serving.waiting})


def ask(client: Client, asked: TopRequest) -> str:
    """Ask for it, without waiting for what it leads to: what the supervisor has made of it, for people.

    Raises:
        StillupError: as the methods of Client; of a ProblemError it is the supervisor's own word.
    """
    match asked.operation:
        case "reload":
            return f"reload {client.reload().id} is accepted"
        case "rollback":
            return f"rollback {client.rollback().id} is accepted"
        case "abort":
            return f"rollout {client.abort().id} is called off"
        case "promote":
            return f"the canary of rollout {client.promote().id} is passed"
        case _:
            return f"{client.scale(asked.workers).workers_wanted} workers are wanted"
