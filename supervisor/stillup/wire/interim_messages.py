"""What a supervisor and its interim server say to each other (``daemon.control.interim_server``).

Over a SOCK_SEQPACKET pair, a packet a message:

    supervisor                                 interim server
    InterimOrders  + the listening sockets ->
                                           <-  READY
    InterimAnswers                         ->                    from here on it answers
    RELEASE + the name of a socket         ->                    its address is to be bound anew
                                           <-  the same          it is closed
    END                                    ->                    by the program that has taken the supervisor's place
                                           <-  the name of a socket  + a connection of it, each
                                               the end of the pair
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from stillup.core.access import Rules
from stillup.errors import PeerError

READY: Final = b"ready"
END: Final = b"end"
RELEASE: Final = b"release "
PACKET_LIMIT: Final = 128 * 1024
"""Bytes of a packet."""
MOST_HEAD: Final = 2048
"""Bytes of a request's head; who sends more is no probe."""
NEVER_ALONE: Final = (b"content-length:", b"transfer-encoding:", b"expect:", b"upgrade:", b"stillup-api:")
"""Headers that make a request more than a probe."""


class InterimOrders(msgspec.Struct, frozen=True):
    """Where probes may be answered, and whose."""

    sockets: list[str]
    """The names of the listening sockets, in the order of the descriptors that come beside this."""
    rules: dict[str, Rules]
    """By socket, who has which role there; of one that is not here anybody may ask."""
    own_uid: int
    """The supervisor's."""
    workers: list[int]
    """Their pids."""
    suspects: list[int]
    """The uids that a worker may have."""
    handoff: str
    """The path of the hand-off socket, by which a worker's children are known."""


class InterimAnswers(msgspec.Struct, frozen=True):
    """By path, the whole answer to a probe."""

    answers: dict[str, str]


def encode(message: InterimOrders | InterimAnswers) -> bytes:
    """One packet."""
    return msgspec.json.encode(message)


def decode_orders(packet: bytes) -> InterimOrders:
    """Read them.

    Raises:
        PeerError: they are none that this version knows.
    """
    return _decode(packet, InterimOrders)


def decode_answers(packet: bytes) -> InterimAnswers:
    """Read them; else as ``decode_orders``."""
    return _decode(packet, InterimAnswers)


T = TypeVar("T", InterimOrders, InterimAnswers)


def _decode(packet: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(packet, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PeerError(f"no word for an interim server: {error}") from error


def answer_to(head: bytes, answers: InterimAnswers) -> bytes | None:
    """The answer to what was read of a connection so far; None if it is no probe, or may not be whole yet.

    It is a whole GET or HEAD of one of the paths, with nothing behind it and nothing in it that asks for more.
    """
    if not head.endswith(b"\r\n\r\n") or head.find(b"\r\n\r\n") != len(head) - 4:
        return None
    first, *headers = head[:-4].split(b"\r\n")
    words = first.split(b" ")
    if len(words) != 3 or words[0] not in (b"GET", b"HEAD") or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):  # noqa: PLR2004 - a request line
        return None
    lower = [line.lower() for line in headers]
    if any(line.startswith(NEVER_ALONE) for line in lower):
        return None
    if words[2] == b"HTTP/1.1" and sum(line.startswith(b"host:") for line in lower) != 1:
        return None
    answer = answers.answers.get(words[1].decode("latin-1"))
    if answer is None:
        return None
    whole = answer.encode()
    return whole if words[0] == b"GET" else whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
