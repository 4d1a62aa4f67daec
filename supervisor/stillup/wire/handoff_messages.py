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
    ProbeAnswer(status)       ->                                                any number of times, then
    BootFailed(stage, why)    ->                                                or
    Ready(probe)              ->
                              <-   Accept()
    Serving()                 ->
    Report(...)               ->                                                once a second, or less often
                              <-   Drain(timeout, final, packet)  Hurry(every)  Cordon(on)  Adopt(on)
                              <-   Pause(timeout, streams, websockets, packet)  and Accept() again
                              <-   KeepOnly(listeners)  Give(share)
                              <-   Reopened()                                   + stdout, stderr, at any time
                              <-   Lead(term)                                   + the leader's lock; for who wants to

A worker that has lost its supervisor, and serves or drains, comes back on a new connection, and gives the next
supervisor copies of what it holds:

    Resume(protocol, nonce, who it is, what it holds)  ->                       + figures
                              <-   Return()
    Batch(count)              ->                                                + that many listeners, at last the queue
                              <-   Taken(count)                                 ... until all are there
                              <-   Resumed()
    Report(...)               ->                                                and so on, as above

A party that hears anything else at its turn hangs up: an unknown message, and an unknown field of one. A worker that is
turned away serves on, and tries again. Of the two values that grow, ``WorkerFigures`` and ``WorkerSettings``, a field
that is not known is passed over, and one that is missing has its default: an earlier stillup in a release's environment
goes on with what it knows.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from stillup.core.worker_figures import WorkerFigures
from stillup.core.worker_settings import WorkerSettings
from stillup.errors import PeerError

PROTOCOL: Final = 5
"""The version that this code speaks. A figure or a setting that is added needs no new one."""
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


class ProbeAnswer(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The health probe's last answer was not healthy, and it is asked again. Only for who ``hears_probe``."""

    status: int
    """0: there is no answer yet."""


class Serving(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The worker accepts."""


class Report(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The worker's figures, and why it asks to be replaced; empty while it does not."""

    figures: WorkerFigures
    recycle: str = ""


class Welcome(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who the worker is and what it runs.

    Two descriptors come with it, its stdout and stderr from READY on, and perhaps a third: the memory in which it
    counts (``wire.figure_cells``).
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
    settings: WorkerSettings = WorkerSettings()


class Refusal(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The worker is turned away."""

    message: str


class ListenerInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a listener is said to be; the receiver derives the same from the socket itself."""

    name: str
    family: int
    address: str


class Resume(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """First of all from a worker that had another supervisor; beside it the memory in which it counts, if there is."""

    protocol: int
    nonce: str
    draining: bool
    """Whether it drains; else it serves, unless it is paused."""
    welcome: Welcome
    """What it was told to run."""
    listeners: list[ListenerInfo]
    """Those that it holds; none once it drains."""
    queue: tuple[int, int] | None
    """SO_COOKIE of the adoption queue's reading and writing end; None once it drains, when it lacks one of them."""
    leads: bool = False
    """Whether it was told to lead, and has not let go."""
    paused: bool = False
    """Whether it is paused; then it neither drains nor serves."""


class Return(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Give copies of the listeners and of the queue's ends, in the order in which they were named."""


class Resumed(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The worker has a supervisor again."""


class Offer(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The descriptors that follow, in that order: listeners, the queue's two ends, the reading ends of older ones."""

    listeners: list[ListenerInfo]
    queue: tuple[int, int]
    """SO_COOKIE of the adoption queue's reading and writing end."""
    older: list[int] = []
    """SO_COOKIE of the reading ends of other queues: workers of other supervisors may still put connections there."""


class Batch(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """In either direction: as many descriptors as ``count`` says."""

    count: int


class Accept(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Begin to accept, or accept again after a pause."""


class Drain(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Stop accepting, finish what is here, and leave. ``final``: nobody takes over.

    ``park``: nobody does now; what is idle goes into the queue as long as there is room, for later.
    """

    timeout: float
    """Seconds for requests, and for whatever has no time of its own."""
    final: bool
    packet: int = 1
    """Connections that may be given away at a time."""
    park: bool = False
    streams: float | None = None
    """Seconds for streaming answers; None: as for requests."""
    websockets: float = 0.0
    """Seconds from being told until WebSockets are closed."""
    sessions: bool = False
    """Whether who takes over knows sessions that go on. Since version 5."""


class Pause(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Take nothing new, give away and finish what is here as in a drain, and stay, with the app started.

    Since version 4; who does not know it is told to drain.
    """

    timeout: float
    """Seconds for requests, and for whatever has no time of its own."""
    streams: float
    """Seconds for streaming answers."""
    websockets: float
    """Seconds from being told until WebSockets are closed."""
    packet: int = 1
    """Connections that may be given away at a time."""
    sessions: bool = False
    """Whether who takes over knows sessions that go on. Since version 5."""


class Cordon(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Say ``Connection: close`` in every answer from now on, or with ``on`` false no more; else go on as before.

    Since version 4.
    """

    on: bool


class Adopt(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Read the adoption queue from now on, or with ``on`` false no more; who accepts, or comes back, reads it.

    Since version 4.
    """

    on: bool


class Give(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Give that share of the idle connections, of 1, to who reads the adoption queue, once, and serve on.

    Since version 4.
    """

    share: float


class KeepOnly(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Accept on these listeners alone from here on; of any other take what waits, and close it.

    Since version 4. One that was not handed to the worker says nothing to it.
    """

    listeners: list[int]
    """By SO_COOKIE."""


class Hurry(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """End endless answers now: those that a client asks for again by itself, or with ``every`` all of them."""

    every: bool = False


class Lead(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Lead in this term, once you hold the lock that comes with it; told to drain, let go. Only for who wants to."""

    term: int


class Reopened(msgspec.Struct, tag_field="type", frozen=True, forbid_unknown_fields=True):
    """The supervisor's stdout and stderr, which come with it, are others now: the log file is a new one."""


FromWorker = Hello | Resume | Taken | Batch | ProbeAnswer | BootFailed | Ready | Serving | Report
FromSupervisor = (
    Welcome
    | Refusal
    | Offer
    | Batch
    | Return
    | Taken
    | Resumed
    | Accept
    | Drain
    | Pause
    | Cordon
    | Adopt
    | Give
    | KeepOnly
    | Hurry
    | Lead
    | Reopened
)

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
