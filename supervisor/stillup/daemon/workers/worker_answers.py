"""What a worker says and answers in its hand-off, each step by itself."""

from __future__ import annotations

from typing import Final, TypeVar

from stillup import __version__
from stillup.core.amounts import amount
from stillup.errors import PeerError
from stillup.wire import handoff_messages, protocol_versions, worker_words
from stillup.wire.handoff_messages import FromWorker, Resume

LONGEST_CLAIM: Final = 16 * 1024
"""Bytes that a worker which is on no record may say of itself: a thousand of them make a record that can be read."""

M = TypeVar("M", bound=FromWorker)


class GaveUpError(PeerError):
    """A worker says in the middle of the hand-off that it cannot serve."""

    def __init__(self, said: handoff_messages.BootFailed) -> None:
        super().__init__(": ".join(worker_words.in_short(said)))
        self.said = said


def understand(packet: bytes, kind: type[M]) -> M:
    """Read an answer.

    Raises:
        GaveUpError: it cannot serve.
        PeerError: it is another answer than the one that is expected.
    """
    if not packet:
        raise PeerError("it hung up")
    message = handoff_messages.decode_from_worker(packet)
    if isinstance(message, handoff_messages.BootFailed):
        raise GaveUpError(message)
    if not isinstance(message, kind):
        raise PeerError(f"it said {type(message).__name__}, not {kind.__name__}")
    return message


def check_protocol(protocol: int) -> None:
    """See that a version is one that is spoken here.

    Raises:
        PeerError: it is not.
    """
    if protocol not in protocol_versions.SPOKEN:
        raise PeerError(
            f"it speaks protocol {protocol}, this supervisor {handoff_messages.PROTOCOL}: "
            f"its environment needs stillup {__version__}"
        )


def check_claim(resume: Resume) -> None:
    """See that what a worker says of itself, which goes on record, is no more than one has to say.

    Raises:
        PeerError: it is.
    """
    if len(handoff_messages.encode(resume)) > LONGEST_CLAIM:
        raise PeerError(f"it says more of itself than {amount(LONGEST_CLAIM, 'byte')}")
