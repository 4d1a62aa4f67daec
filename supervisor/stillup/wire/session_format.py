"""A session between two workers: what the next one has to know beside its descriptor, to go on with it.

It is a WebSocket, or an answer that streams, which the app at one worker leaves to the app at the next.

It is msgpack. A field that a version lacks has its default, one that it does not know is passed over. A small one rides
in the packet of the adoption queue, a larger one in memory of its own behind its connection (``wire.adoption_packet``).

Any worker may write to the queue, so the receiver checks every size and number itself: what ``decode`` returns can be
used as it is.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from stillup.core.amounts import amount
from stillup.errors import PeerError

STATE_LIMIT: Final = 1024 * 1024
"""Bytes of state that an app may leave to the next."""
SESSION_LIMIT: Final = 2 * 1024 * 1024
"""Bytes of a session, with all that was read of it and not consumed."""
WAITING_LIMIT: Final = SESSION_LIMIT - STATE_LIMIT - 128 * 1024
"""Bytes of messages and of a frame that may travel: what is left beside the state, the window and the request."""
MOST_WINDOW: Final = 32 * 1024
"""Bytes that DEFLATE looks back at most (RFC 1951)."""
BODY_LIMIT: Final = 64 * 1024
"""Bytes of a request's body that are kept, so that the request can be made again."""
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, 5.6.2."""
_NAME: Final = re.compile(rb"(?!upgrade\Z)[!#$%&'*+.^_`|~0-9a-z-]+")
"""The same, as ASGI has a header's; and none by which the request would end as another protocol's."""
_TARGET: Final = re.compile(r"[!-~]+")
_ENDS_LINE: Final = re.compile(rb"[\r\n\0]")
_MOST_MESSAGES: Final = 64 * 1024
_MOST_HEADERS: Final = 4096


class Deflate(msgspec.Struct, frozen=True, omit_defaults=True):
    """permessage-deflate as it was negotiated (RFC 7692, 7.1), seen from the server."""

    remote_no_context_takeover: bool
    local_no_context_takeover: bool
    remote_max_window_bits: Annotated[int, Meta(ge=8, le=15)]
    local_max_window_bits: Annotated[int, Meta(ge=9, le=15)]
    window: Annotated[bytes, Meta(max_length=MOST_WINDOW)] = b""
    """What was inflated last, as far as the client may look back (``wire.deflate_window``)."""


class OpenWebSocket(msgspec.Struct, frozen=True, omit_defaults=True, tag="websocket"):
    """A WebSocket that its app has handed over, between two messages."""

    state: Annotated[bytes, Meta(max_length=STATE_LIMIT)]
    """What the app has left to the next."""
    target: str
    """Of the request, which is made again: path and query."""
    headers: Annotated[list[tuple[bytes, bytes]], Meta(max_length=_MOST_HEADERS)]
    """Of the request, in their order."""
    subprotocol: str | None = None
    """The one that the app has accepted."""
    deflate: Deflate | None = None
    waiting: Annotated[list[tuple[bool, bytes]], Meta(max_length=_MOST_MESSAGES)] = []
    """Messages that the app has not received: whether each is text, and its bytes."""
    partial: bytes = b""
    """What was read of the frame that is not whole."""


class OpenAnswer(msgspec.Struct, frozen=True, omit_defaults=True, tag="answer"):
    """An answer whose app has handed it over, between two parts of its body."""

    state: Annotated[bytes, Meta(max_length=STATE_LIMIT)]
    """What the app has left to the next."""
    method: Annotated[str, Meta(max_length=64)]
    target: str
    """Of the request, which is made again: path and query."""
    headers: Annotated[list[tuple[bytes, bytes]], Meta(max_length=_MOST_HEADERS)]
    """Of the request, in their order."""
    status: Annotated[int, Meta(ge=200, le=599)]
    """Of the answer, whose head the client has."""
    body: Annotated[bytes, Meta(max_length=BODY_LIMIT)] = b""
    """Of the request, whole."""
    content_type: bytes | None = None
    """Of the answer."""
    length: Annotated[int, Meta(ge=0)] | None = None
    """Bytes of the answer's body by its Content-Length; None: it comes in chunks."""
    left: Annotated[int, Meta(ge=0)] = 0
    """Bytes of these that are still to be sent."""
    keep_alive: bool = True
    """Whether the connection is kept when the answer is complete."""


Session = OpenWebSocket | OpenAnswer

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Session] = msgspec.msgpack.Decoder(Session)


def encode(session: Session) -> bytes:
    """The session as bytes.

    Raises:
        PeerError: they would be more than SESSION_LIMIT.
    """
    packed = _encoder.encode(session)
    if len(packed) > SESSION_LIMIT:
        raise PeerError(f"a session of {amount(len(packed), 'byte')}: over the limit of {SESSION_LIMIT}")
    return packed


def decode(packed: bytes) -> Session:
    """Read what another worker has put there.

    Raises:
        PeerError: it is no session, or one that no client could have come to.
    """
    if len(packed) > SESSION_LIMIT:
        raise PeerError(f"a session of {amount(len(packed), 'byte')}: over the limit of {SESSION_LIMIT}")
    try:
        session = _decoder.decode(packed)
        if isinstance(session, OpenWebSocket):
            for is_text, message in session.waiting:
                if is_text:
                    message.decode()
        elif not _is_request(session) or session.left > (session.length or 0):
            raise PeerError("not a session: no answer can be that")
        for name, _ in session.headers:
            name.decode("ascii")
        session.target.encode("ascii")
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise PeerError(f"not a session: {error}") from error
    return session


def _is_request(answer: OpenAnswer) -> bool:
    """Whether the request can be made again as that one request."""
    names_and_values = all(_NAME.fullmatch(name) and not _ENDS_LINE.search(value) for name, value in answer.headers)
    named = _METHOD.fullmatch(answer.method) is not None
    return named and names_and_values and _TARGET.fullmatch(answer.target) is not None
