"""What a supervisor and a template (``worker.template``) or a preloader (``worker.preload``) say to each other.

Over a SOCK_SEQPACKET pair, a packet a message; the other end is its stdin:

    supervisor                                       template
                                                 <-  Prepared      once: it has imported what a worker needs
    ForkAsked + the worker's stdout, stderr      ->                and its stdin, if it has one
                                                 <-  Forked, or ForkFailed, or Stale, after which it ends

    supervisor                                       preloader
                                                 <-  Prepared      once: it is one
    Load                                         ->
                                                 <-  Loaded        once: it has imported the app; or
                                                     BootFailed    as a worker would say it; then it is ended
    ForkAsked, as above                          ->
                                                 <-  Forked, or ForkFailed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from stillup.errors import PeerError
from stillup.wire.handoff_messages import BootFailed, Welcome

VARIABLE: Final = "STILLUP_TEMPLATE_IMPORTS"
"""In the environment of a template, and of nothing else: what it is to import (``encode_imports``)."""
PRELOADER: Final = "STILLUP_PRELOADER"
"""In the environment of a preloader, and of nothing else."""
PACKET_LIMIT: Final = 64 * 1024
"""Bytes of a packet."""
DESCRIPTORS: Final = 3
"""Beside a ForkAsked, at most."""


class Prepared(msgspec.Struct, frozen=True, tag=True):
    """It can fork from here on, if it has one thread."""

    threads: int
    missing: dict[str, str]
    """Of those modules, what could not be imported or cannot be there, and why."""


class ForkAsked(msgspec.Struct, frozen=True, tag=True):
    """A worker is wanted."""

    argv: list[str]
    """Its command line, as it would have been started."""
    environment: Mapping[str, str]
    """What it has beside the template's own."""
    own_keyring: bool
    """Whether it joins a session keyring of its own, as another user's would (keyctl(2))."""


class Forked(msgspec.Struct, frozen=True, tag=True):
    """The worker is there, and a child of the supervisor's."""

    pid: int


class ForkFailed(msgspec.Struct, frozen=True, tag=True):
    """There is none."""

    number: int
    """The errno of fork(2)."""


class Stale(msgspec.Struct, frozen=True, tag=True):
    """Something that it has imported is not what it was: it ends, and a new one would import what is there now."""

    path: str


class Load(msgspec.Struct, frozen=True, tag=True):
    """Import the app of these workers; it is none of them, so that its slot is 0."""

    workers: Welcome


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The app is imported."""

    unfit: list[str]
    """What of it would not work in a forked worker: none is forked then, and this process ends."""


FromTemplate = Prepared | Forked | ForkFailed | Stale
FromPreloader = Loaded | BootFailed

_ASKED = msgspec.json.Decoder(ForkAsked)
_SAID = msgspec.json.Decoder(FromTemplate)
_LOAD = msgspec.json.Decoder(Load)
_LOADED: msgspec.json.Decoder[FromPreloader] = msgspec.json.Decoder(FromPreloader)


def encode_imports(warm: Sequence[str], others: Sequence[str]) -> str:
    """The names of modules; of the first it is told which could not be imported."""
    return f"{','.join(warm)};{','.join(others)}"


def decode_imports(text: str) -> tuple[list[str], list[str]]:
    """As they were given."""
    warm, _, others = text.partition(";")
    return [*filter(None, warm.split(","))], [*filter(None, others.split(","))]


def encode(message: ForkAsked | FromTemplate | Load | Loaded) -> bytes:
    """One packet."""
    return msgspec.json.encode(message)


def decode_asked(packet: bytes) -> ForkAsked:
    """Read what a supervisor asks.

    Raises:
        PeerError: it is no such message.
    """
    return _decode(packet, _ASKED)


def decode_said(packet: bytes) -> FromTemplate:
    """Read what a template says; else as ``decode_asked``."""
    said: FromTemplate = _decode(packet, _SAID)
    return said


def decode_load(packet: bytes) -> Load:
    """Read what a preloader is to import; else as ``decode_asked``."""
    return _decode(packet, _LOAD)


def decode_loaded(packet: bytes) -> FromPreloader:
    """Read what became of that; else as ``decode_asked``."""
    said: FromPreloader = _decode(packet, _LOADED)
    return said


T = TypeVar("T")


def _decode(packet: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(packet)
    except msgspec.MsgspecError as error:
        raise PeerError(str(error)) from error
