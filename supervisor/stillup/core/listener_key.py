"""Which listener: what a release listens on, and what the supervisor holds, are said by these."""

from __future__ import annotations

import msgspec


class ListenerKey(msgspec.Struct, frozen=True, order=True):
    """A listener, by what it was asked for as; of one key there is one socket."""

    name: str
    bind: str
    """Its address as it was given: port 0 and a host's name stand here as they are."""
