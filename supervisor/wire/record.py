"""The record: what a supervisor writes down, so that another one can go on where it ended.

The fleet is written as it is: a field that a version lacks has its default, one that it does not know is passed over.
What cannot be understood without a new field needs a new SCHEMA.

Python's own json writes and reads the text: a variable of a release's environment may be any bytes (os.fsdecode makes
lone surrogates of those), and msgspec has none of them in JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

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
    made_directory: bool = False
    """Whether the runtime directory was made for the service, and goes with it."""
    drain_timeout: float = 30.0
    """Seconds that a worker may drain; for who ends them without a supervisor."""
    reexecs: int = 0
    """How often the supervisor has replaced its own program."""


@dataclass(frozen=True, slots=True)
class Bequest:
    """What a supervisor that replaces its own program leaves to that: its record, and the descriptors by number."""

    schema: int
    record: Record
    path: str
    """Of the runtime directory."""
    lock: int
    control: int
    handoff: int
    listeners: tuple[int, ...]
    """In the order of the record's."""
    queue: tuple[int, int]
    observe: int | None = None
    admin: int | None = None
    admin_bind: str = ""
    """What ``admin`` was bound for."""


T = TypeVar("T", Record, Bequest)


def encode(record: Record) -> bytes:
    """The record as JSON. What a worker reports every second is not in it."""
    return _encode(replace(record, fleet=lasting(record.fleet)))


def decode(text: bytes) -> Record:
    """Read a record.

    Raises:
        PeerError: it is none, or one of a version that is not known here, or no supervisor could have written it.
    """
    return _checked(_decode(Record, text))


def encode_bequest(bequest: Bequest) -> bytes:
    """The bequest as JSON."""
    return _encode(replace(bequest, record=replace(bequest.record, fleet=lasting(bequest.record.fleet))))


def decode_bequest(text: bytes) -> Bequest:
    """Read a bequest.

    Raises:
        PeerError: as ``decode``.
    """
    bequest = _decode(Bequest, text)
    _checked(bequest.record)
    if len(bequest.listeners) != len(bequest.record.listeners):
        raise PeerError("its parts contradict each other")
    return bequest


def _encode(what: Record | Bequest) -> bytes:
    return json.dumps(msgspec.to_builtins(what, str_keys=True)).encode("ascii")


def _decode(shape: type[T], text: bytes) -> T:
    try:
        plain = json.loads(text.decode(), parse_float=_finite, parse_constant=_finite)
        schema = plain.get("schema") if isinstance(plain, dict) else None
        if isinstance(schema, int) and schema not in READABLE:
            raise PeerError(f"it has schema {schema}, this version reads {SCHEMA}")
        return msgspec.convert(plain, shape, str_keys=True)
    except (ValueError, RecursionError) as error:  # msgspec's, json's and Unicode's errors are all of the first
        raise PeerError(f"it is no record: {error}") from error


def _checked(record: Record) -> Record:
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
        serial: replace(worker, heard=None, hung=None, connections={}, requests=0, oldest={}, crossed=Crossed())
        for serial, worker in fleet.workers.items()
    }
    # That of the generation that serves may have to be taken back.
    serves = fleet.serving.id if fleet.serving is not None else None
    older = (rollout if rollout.generation == serves else _slim(rollout) for rollout in fleet.rollouts[:-WHOLE])
    return replace(fleet, workers=workers, rollouts=(*older, *fleet.rollouts[-WHOLE:]), policy=Policy())


def _slim(rollout: Rollout) -> Rollout:
    if rollout.state.pending:
        return rollout
    replaced = _shown(rollout.replaced) if rollout.replaced is not None else None
    return replace(rollout, release=_shown(rollout.release), replaced=replaced)


def _shown(release: Release) -> Release:
    return Release(release.app, release.python, release.directory, label=release.label, whole=False)
