"""The record: what a supervisor writes down, so that another one can go on where it ended.

The fleet is written as it is: a field that a version lacks has its default, one that it does not know is passed over.
What cannot be understood without a new field needs a new SCHEMA.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from supervisor.core.crossing import Crossed
from supervisor.core.model import Fleet, Policy, Release, Rollout
from supervisor.core.recovery import consistent
from supervisor.errors import PeerError

SCHEMA: Final = 1
"""The version that is written. A reader takes this one and the one before, once there is one."""
READABLE: Final = (SCHEMA,)
KEY: Final = 32
"""Bytes of the key that the nonces are made of."""
WHOLE: Final = 2
"""The latest rollouts whose releases are written whole; of older ones only what is shown."""


@dataclass(frozen=True, slots=True)
class ListenerRecord:
    """A listener in custody."""

    name: str
    bind: str
    """As it was asked for: port 0 and a host's name stand here as they were given."""
    cookie: int
    """SO_COOKIE."""
    file: tuple[int, int] | None = None
    """Device and inode of its socket file, if that is ours."""


@dataclass(frozen=True, slots=True)
class Record:
    """Everything, at one moment."""

    schema: int
    boot: str
    """The kernel's boot_id: times and pids mean nothing in another."""
    key: str
    """What the workers' nonces are made of; hexadecimal."""
    workers_wanted: int
    """As it was configured; scaling changes the fleet's."""
    fleet: Fleet
    listeners: tuple[ListenerRecord, ...] = ()
    queue: tuple[int, int] = (0, 0)
    """SO_COOKIE of the adoption queue's ends."""
    nonces: Mapping[int, str] = field(default_factory=dict)
    """By serial, of workers that were not started under this key."""
    descriptors: Mapping[str, int] = field(default_factory=dict)
    """In a supervisor that replaces its own program: the numbers under which its successor finds what it held."""


def encode(record: Record) -> bytes:
    """The record as JSON. What a worker reports every second is not in it."""
    plain = msgspec.to_builtins(replace(record, fleet=lasting(record.fleet)), str_keys=True)
    # Not by msgspec's own encoder: a path or a variable that is no UTF-8 is a string of lone surrogates here.
    return json.dumps(plain).encode()


def decode(text: bytes) -> Record:
    """Read a record.

    Raises:
        PeerError: it is none, or one of a version that is not known here, or no supervisor could have written it.
    """
    try:
        plain = json.loads(text.decode(), parse_float=_finite, parse_constant=_finite)
        schema = plain.get("schema") if isinstance(plain, dict) else None
        if schema is not None and schema not in READABLE:
            raise PeerError(f"it has schema {schema}, this version reads {SCHEMA}")
        record = msgspec.convert(plain, Record, str_keys=True)
    except (ValueError, RecursionError) as error:  # msgspec's, json's and Unicode's errors are all of the first
        raise PeerError(f"it is no record: {error}") from error
    if not _is_key(record.key) or not consistent(record.fleet):
        raise PeerError("its parts contradict each other")
    return record


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        message = f"{text} is no number"
        raise ValueError(message)
    return number


def _is_key(text: str) -> bool:
    return len(text) == 2 * KEY and set(text) <= set("0123456789abcdef")


def lasting(fleet: Fleet) -> Fleet:
    """The fleet without what changes while nothing happens, and without what an operator says anew at each start."""
    workers = {
        serial: replace(worker, connections={}, requests=0, oldest={}, crossed=Crossed())
        for serial, worker in fleet.workers.items()
    }
    rollouts = tuple(map(_slim, fleet.rollouts[:-WHOLE])) + fleet.rollouts[-WHOLE:]
    return replace(fleet, workers=workers, rollouts=rollouts, policy=Policy())


def _slim(rollout: Rollout) -> Rollout:
    if rollout.state.pending:
        return rollout
    release = rollout.release
    return replace(rollout, release=Release(release.app, release.python, release.directory, label=release.label))
