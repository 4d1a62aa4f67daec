"""What ``GET /v1/trace`` says: each message on ``handoff.sock`` and ``control.sock``, a JSON object a line.

Nothing secret is in it: of a message those fields are shown that stand in SHOWN, so a new field is left out until it is
added there. Nonces, an app's options, headers, bodies and query strings never are.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final

import msgspec

from stillup.errors import PeerError
from stillup.wire import handoff_messages

SHOWN: Final[dict[str, tuple[str, ...]]] = {
    "Hello": ("protocol",),
    "Resume": ("protocol", "draining", "listeners", "queue", "leads"),
    "Taken": ("count",),
    "ProbeAnswer": ("status",),
    "BootFailed": ("stage",),
    "Ready": ("probe",),
    "Serving": (),
    "Report": ("figures.*", "recycle"),
    "Welcome": (
        "protocol",
        "worker",
        "generation",
        "app",
        "directory",
        "app_dir",
        "drain_timeout",
        "boot_timeout",
        "settings.max_worker_age",
        "settings.max_worker_rss",
        "settings.orphan_timeout",
        "settings.drain_timeout_stream",
        "settings.drain_timeout_websocket",
        "settings.stop_timeout",
    ),
    "Refusal": ("message",),
    "Offer": ("listeners", "queue", "older"),
    "Batch": ("count",),
    "Return": (),
    "Resumed": (),
    "Accept": (),
    "Drain": ("timeout", "final", "packet", "streams", "websockets"),
    "Hurry": ("every",),
    "Cordon": ("on",),
    "Lead": ("term",),
    "Adopt": ("on",),
    "KeepOnly": ("listeners",),
    "Reopened": (),
}
"""The fields that are shown, by type of message; after a dot, of the value in that field (``*``: all of its fields).

Not BootFailed's ``message``: it is the app's, and may say anything. Nor the health check's path, host and headers as
they are configured, which may hold a token: Ready's ``probe`` has no query."""


class TracedMessage(msgspec.Struct, tag_field="kind", tag="message", frozen=True):
    """One message."""

    time: float
    """Wall clock, seconds since 1970."""
    socket: str
    """``handoff`` or ``control``."""
    direction: str
    """``in``: to the supervisor; ``out``: from it."""
    pid: int
    """The peer's, as of connect(), by the kernel's word; 0 if it is of another pid namespace."""
    uid: int
    worker: str
    """The peer's name if it is a worker, as ``3.1``; else empty."""
    type: str
    """Of a hand-off message its name, ``end`` when the peer has hung up, ``garbled`` for what is none; else ``request``
    or ``response``."""
    size: int | None
    """Bytes: of the packet, or of an HTTP body; null where that is not known beforehand."""
    fields: dict[str, Any]
    descriptors: list[str]
    """What came or went with it, each as ss(8) would call it: ``tcp 127.0.0.1:8000 listening``."""


class TraceGap(msgspec.Struct, tag_field="kind", tag="gap", frozen=True):
    """Messages that are not shown, since the reader is too slow."""

    missed: int


TraceLine = TracedMessage | TraceGap

_decoder: msgspec.json.Decoder[TraceLine] = msgspec.json.Decoder(TraceLine)


def decode(line: bytes) -> TraceLine:
    """Read one line.

    Raises:
        PeerError: it is none.
    """
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"not a line of a trace: {error}") from error


def encode(line: TraceLine) -> bytes:
    """One line, with its end."""
    return msgspec.json.encode(line) + b"\n"


def handoff_message(direction: str, packet: bytes) -> tuple[str, dict[str, Any]]:
    """The type of a hand-off message and what of it may be shown."""
    if not packet:
        return "end", {}
    decode_packet = (
        handoff_messages.decode_from_worker if direction == "in" else handoff_messages.decode_from_supervisor
    )
    try:
        message = decode_packet(packet)
    except PeerError:  # it is shown that it came; what is wrong with it the log says, without its text
        return "garbled", {}
    name = type(message).__name__
    fields: dict[str, Any] = {}
    for path in SHOWN.get(name, ()):
        fields |= _shown(message, path)
    return name, fields


def _shown(message: Any, path: str) -> dict[str, Any]:
    value: Any = msgspec.to_builtins(attrgetter(path.removesuffix(".*"))(message))
    return value if path.endswith(".*") else {path.rpartition(".")[2]: value}
