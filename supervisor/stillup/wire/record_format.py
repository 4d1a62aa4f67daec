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
from typing import Final, TypeVar

import msgspec

from stillup.core.model import Fleet, Release, Rollout
from stillup.core.policy import Policy
from stillup.core.rebuild import consistent
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from stillup.errors import PeerError

SCHEMA: Final = 2
"""The version that is written. A reader takes this one and the one before, once that was released."""
READABLE: Final = (SCHEMA,)
KEY: Final = 32
"""Bytes of the key that the nonces are made of."""
WHOLE: Final = 2
"""The latest rollouts whose releases are written whole; of older ones only what is shown."""


class TooOldError(PeerError):
    """A stillup has written it whose workers this one cannot take over."""

    def __init__(self, message: str, boot: str) -> None:
        """``boot``: the kernel's boot_id under which it was written; empty if that cannot be seen."""
        super().__init__(message)
        self.boot = boot


class ListenerRecord(msgspec.Struct, frozen=True):
    """A listener in custody."""

    name: str
    bind: str
    """As it was asked for: port 0 and a host's name stand here as they were given."""
    cookie: int
    """SO_COOKIE."""
    file: tuple[int, int] | None = None
    """Device and inode of its socket file, if that is ours."""


class Record(msgspec.Struct, frozen=True):
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
    nonces: Mapping[int, str] = msgspec.field(default_factory=dict)
    """By serial, of workers that were not started under this key."""
    made_directory: bool = False
    """Whether the runtime directory was made for the service, and goes with it."""
    drain_timeout: float = 30.0
    """Seconds that a worker may drain when nobody comes after; for who ends them without a supervisor."""
    reexecs: int = 0
    """How often the supervisor has replaced its own program."""


class ReexecState(msgspec.Struct, frozen=True):
    """What a supervisor hands on to the program that replaces it (execve(2)): its record, and open descriptors."""

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
    agent: int | None = None
    agent_bind: str = ""
    """What ``agent`` was bound for."""
    interim: int | None = None
    """The pair with the interim server, which answers probes meanwhile."""
    interim_pid: int = 0


T = TypeVar("T", Record, ReexecState)


def encode(record: Record) -> bytes:
    """The record as JSON. What workers report of themselves is not in it."""
    return _encode(replace(record, fleet=lasting(record.fleet)))


def decode(text: bytes) -> Record:
    """Read a record.

    Raises:
        PeerError: it is none, or one of a version that is not known here, or no supervisor could have written it.
    """
    return _checked(_decode(Record, text))


def encode_reexec_state(reexec_state: ReexecState) -> bytes:
    """The state as JSON."""
    return _encode(replace(reexec_state, record=replace(reexec_state.record, fleet=lasting(reexec_state.record.fleet))))


def decode_reexec_state(text: bytes) -> ReexecState:
    """Read the state that a program has handed on.

    Raises:
        PeerError: as ``decode``.
    """
    reexec_state = _decode(ReexecState, text)
    _checked(reexec_state.record)
    if len(reexec_state.listeners) != len(reexec_state.record.listeners):
        raise PeerError("its parts contradict each other")
    return reexec_state


def _encode(what: Record | ReexecState) -> bytes:
    return json.dumps(msgspec.to_builtins(what, str_keys=True)).encode("ascii")


def _decode(shape: type[T], text: bytes) -> T:
    try:
        plain = json.loads(text.decode(), parse_float=_finite, parse_constant=_finite)
        schema = plain.get("schema") if isinstance(plain, dict) else None
        if isinstance(schema, int) and schema not in READABLE:
            message = f"it has schema {schema}, this version reads {SCHEMA}"
            raise TooOldError(message, str(plain.get("boot", ""))) if schema < SCHEMA else PeerError(message)
        return msgspec.convert(plain, shape, str_keys=True)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:  # json's and Unicode's errors are of the first
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
        serial: replace(worker, heard=None, hung=None, unhealthy=None, figures=WorkerFigures(), reported=0.0)
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
