"""The hand-off channel: what supervisor and worker say to each other over ``handoff.sock``.

The socket is SOCK_SEQPACKET, so one packet is one message and nothing needs framing. A message is JSON with its name
under ``type``; descriptors ride beside it as SCM_RIGHTS (unix(7)). The order, each step answered before the next:

    worker                         supervisor
    Hello(protocol, nonce)    ->
                              <-   Welcome(protocol, who you are, what to run)  + stdout, stderr, figures
    Taken(0)                  ->
                              <-   Offer(descriptions of every listener, cookies of the adoption queue)
    Taken(0)                  ->
                              <-   Batch(count)                                 + that many listeners, at last the queue
    Taken(count)              ->                                                ... until all are there
    BootFailed(stage, why)    ->                                                or
    Ready(probe)              ->
                              <-   Accept()
    Serving()                 ->
    Report(...)               ->                                                about once a second
                              <-   Drain(timeout, final, packet)  Hurry()

A worker that has lost its supervisor, and serves or drains, comes back on a new connection, and gives the next
supervisor copies of what it holds:

    Resume(protocol, nonce, who it is, what it holds)  ->
                              <-   Return()
    Batch(count)              ->                                                + that many listeners, at last the queue
                              <-   Taken(count)                                 ... until all are there
                              <-   Resumed()
    Report(...)               ->                                                and so on, as above

A party that hears anything else at its turn hangs up. A worker that is turned away serves on, and tries again.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from supervisor.errors import PeerError

PROTOCOL: Final = 2
"""The version that this code speaks: 2 has what a worker says that comes back. In 1 it finished and left."""
SPOKEN: Final = frozenset({1, PROTOCOL})
"""The versions that a supervisor speaks: a release may bring an environment with the stillup before this one."""
COMES_BACK: Final = 2
"""The first version whose workers come back when they have lost their supervisor."""
LONGEST_WAIT: Final = 1.0
"""Seconds, at most, between two attempts of a worker to find a supervisor."""
MESSAGE_LIMIT: Final = 128 * 1024
"""Bytes; well under the kernel's default socket buffer (212,992), so that a packet is never EMSGSIZE."""
REASON_LIMIT: Final = 4096
"""Characters of a worker's reason; an app's error may have any number, and its output has them all."""
BATCH_LIMIT: Final = 64
"""Descriptors a packet; the kernel takes at most 253 (SCM_MAX_FD)."""


class Hello(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """First of all: the worker's version, and the nonce that was on record before it was started."""

    protocol: int
    nonce: str


class Taken(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The step before was understood, and that many descriptors of it are held."""

    count: int


class BootFailed(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The worker cannot serve, and leaves. ``stage``: listeners, options, import, lifespan or probe."""

    stage: str
    message: str


class Ready(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The app is up. ``probe`` says what the health probe saw; empty without one."""

    probe: str = ""


class Serving(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The worker accepts."""


class Report(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The worker's figures: open connections by class, requests answered, why it wants to be replaced if it does."""

    connections: dict[str, int]
    requests: int
    worn: str = ""
    oldest: dict[str, float] = {}
    """While it drains: for each class, the seconds that its oldest connection has been of it."""
    given: int = 0
    """Connections put into the adoption queue; this and the next four are of its whole life (``core.crossing``)."""
    adopted: int = 0
    lost: int = 0
    closed: int = 0
    longest: float = 0.0


class Welcome(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who the worker is and what it runs. Two descriptors come with it, its stdout and stderr from READY on.

    From version 2 on there may be a third: the file in which it counts (``wire.figures``).
    """

    protocol: int
    worker: int
    """Its slot."""
    generation: int
    app: str
    directory: str
    """The working directory, absolute."""
    app_dir: str
    """Where the app is imported from, absolute."""
    options: dict[str, Any]
    """uvicorn's, by the names of Config's arguments."""
    drain_timeout: float
    boot_timeout: float
    """Seconds left until READY is due."""
    health_path: str = ""
    health_host: str = "localhost"
    max_age: float | None = None
    """Seconds after which the worker is to say that it is worn."""
    max_rss: int | None = None
    """Bytes in memory from which on it is."""
    orphan_timeout: float = 0.0
    """Seconds that it serves on without a supervisor, before it drains. Since version 2."""


class Refusal(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The worker is turned away."""

    message: str


class ListenerInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a listener is said to be; the receiver derives the same from the socket itself."""

    name: str
    family: int
    address: str


class Resume(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """First of all from a worker that had another supervisor. Since version 2."""

    protocol: int
    nonce: str
    draining: bool
    """Whether it drains; else it serves."""
    welcome: Welcome
    """What it was told to run."""
    listeners: list[ListenerInfo]
    """Those that it holds; none once it drains."""
    queue: tuple[int, int] | None
    """SO_COOKIE of the adoption queue's reading and writing end; None once it drains, when it lacks one of them."""


class Return(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Give copies of the listeners and of the queue's ends, in the order in which they were named. Since version 2."""


class Resumed(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The worker has a supervisor again. Since version 2."""


class Offer(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The descriptors that follow, in that order: listeners, the queue's two ends, the reading ends of older ones."""

    listeners: list[ListenerInfo]
    queue: tuple[int, int]
    """SO_COOKIE of the adoption queue's reading and writing end."""
    older: list[int] = []
    """SO_COOKIE of the reading ends of other queues, into which workers of other supervisors may still put connections.
    Since version 2."""


class Batch(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """In either direction: as many descriptors as ``count`` says."""

    count: int


class Accept(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Begin to accept."""


class Drain(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Stop accepting, finish and leave within ``timeout`` seconds. ``final``: nobody takes over.

    ``park``: nobody does now; what is idle goes into the queue as long as there is room, for later. Since version 2.
    """

    timeout: float
    final: bool
    packet: int = 1
    """Connections that may be given away at a time."""
    park: bool = False


class Hurry(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """End endless answers now."""


FromWorker = Hello | Resume | Taken | Batch | BootFailed | Ready | Serving | Report
FromSupervisor = Welcome | Refusal | Offer | Batch | Return | Taken | Resumed | Accept | Drain | Hurry

_encoder = msgspec.json.Encoder()
_from_worker: msgspec.json.Decoder[FromWorker] = msgspec.json.Decoder(FromWorker)
_from_supervisor: msgspec.json.Decoder[FromSupervisor] = msgspec.json.Decoder(FromSupervisor)

T = TypeVar("T")


def encode(message: FromWorker | FromSupervisor) -> bytes:
    """One packet. What UTF-8 cannot say, such as a file name of other bytes in an app's error, is said by escapes.

    Raises:
        PeerError: it would be longer than MESSAGE_LIMIT.
    """
    try:
        packet = _encoder.encode(message)
    except UnicodeEncodeError:
        packet = _encoder.encode(_escaped(msgspec.to_builtins(message)))
    if len(packet) > MESSAGE_LIMIT:
        raise PeerError(f"a {type(message).__name__} of {len(packet)} bytes is over the limit of {MESSAGE_LIMIT}")
    return packet


M = TypeVar("M", bound=FromSupervisor)


def for_version(message: M, protocol: int) -> M:
    """The same message in the words of a version that is spoken: what an earlier one does not know is left out."""
    match message:
        case Welcome() if protocol < PROTOCOL:
            return msgspec.structs.replace(message, protocol=protocol, orphan_timeout=0.0)
        case Drain(park=True) if protocol < COMES_BACK:
            # Who cannot park would give to nobody.
            return msgspec.structs.replace(message, final=True, packet=1, park=False)
        case _:
            return message


def boot_failed(stage: str, reason: str) -> BootFailed:
    """The message for a reason of any length."""
    if len(reason) > REASON_LIMIT:
        reason = f"{reason[:REASON_LIMIT]} ..."
    return BootFailed(stage, reason)


def _escaped(value: Any) -> Any:
    r"""The same with every lone surrogate written as its escape: U+DCFF as ``\udcff``."""
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {_escaped(key): _escaped(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_escaped(inner) for inner in value]
        case _:
            return value


def decode_from_worker(packet: bytes) -> FromWorker:
    """Read what a worker sent.

    Raises:
        PeerError: it is no message of this protocol.
    """
    return _decode(_from_worker, packet)


def decode_from_supervisor(packet: bytes) -> FromSupervisor:
    """Read what the supervisor sent.

    Raises:
        PeerError: it is no message of this protocol.
    """
    return _decode(_from_supervisor, packet)


def _decode(decoder: msgspec.json.Decoder[T], packet: bytes) -> T:
    try:
        return decoder.decode(packet)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"not a message of the hand-off protocol: {error}") from error
