"""What the parts of a worker tell each other."""

from __future__ import annotations

import asyncio

import msgspec


class WorkerEvents(msgspec.Struct, frozen=True):
    """Made in the running loop."""

    changed: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    """Set when a connection has ended, when an adoption queue has, and when the rules of the drain change."""
    news: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    """Set when there is something to report before the next heartbeat."""
    retiring: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    """Set for good when the worker begins to retire."""
