"""The hand-off protocol with workers of an earlier stillup, which a release's own environment may bring.

A message is said in the words of the version that its worker speaks; what that one does not know is left out here.
"""

from __future__ import annotations

from typing import Final

import msgspec

from stillup.wire.handoff_messages import (
    PROTOCOL,
    Adopt,
    Cordon,
    Drain,
    FromSupervisor,
    Give,
    Hurry,
    KeepOnly,
    Lead,
    Pause,
    Reopened,
    Welcome,
)

SPOKEN: Final = frozenset({3, 4, PROTOCOL})
"""The versions that a supervisor speaks: a release may bring an environment with an earlier stillup. Of those before 3
none was released, and their package had another name. Since 4 a drain has times by class, a hurry may be of all, and a
worker is told of a cordon, whether it reads the adoption queue, which listeners are left, and to pause; since 5
sessions go on in another worker."""
_WITH_SESSIONS: Final = 5
_OLDEST: Final = 3
"""Of the versions that are spoken."""


def for_version(message: FromSupervisor, protocol: int) -> FromSupervisor:
    """The same message in the words of a version that is spoken; what that one does not know is to be left out here."""
    if isinstance(message, Welcome) and message.protocol != protocol:
        return msgspec.structs.replace(message, protocol=protocol)
    if protocol < _WITH_SESSIONS and isinstance(message, Drain | Pause):
        message = msgspec.structs.replace(message, sessions=False)
    if protocol <= _OLDEST and isinstance(message, Drain):
        return msgspec.structs.replace(message, streams=None, websockets=0.0)
    if protocol <= _OLDEST and isinstance(message, Pause):
        return Drain(message.timeout, final=False, packet=message.packet)
    if protocol <= _OLDEST and isinstance(message, Hurry):
        return msgspec.structs.replace(message, every=False)
    return message


def takes_sessions(protocol: int) -> bool:
    """Whether a worker that speaks that version can take WebSockets over."""
    return protocol >= _WITH_SESSIONS


def is_known(message: FromSupervisor, protocol: int) -> bool:
    """Whether a worker that speaks that version knows the message; one that does not goes on without."""
    return protocol > _OLDEST or not isinstance(message, Cordon | Adopt | Give | KeepOnly | Lead | Reopened)
