"""What can go wrong, told apart by whose fault it is.

    StillupError
    ├── Refused            the caller's: asked for something that cannot be had now
    │   ├── NotPermitted   the kernel says the caller is somebody without that right
    │   ├── Unchanged      it is so already, and was asked for as something that may be asked for again
    │   ├── UsageError     a flag, a key or an address that means nothing
    │   └── Unavailable    an address, a file or a directory that somebody else holds
    └── PeerError          the other end's: gone, cut short, or outside the protocol

What is ours to blame has no class here: it is whatever Python raises, and is logged with its traceback.

A message names the thing and the way out of it; it is shown to operators as it is.
"""

from __future__ import annotations


class StillupError(Exception):
    """Base of every error that this package raises on purpose."""


class Refused(StillupError):
    """The caller asked for something that cannot be had; nothing was changed.

    ``code`` is a stable word for programs: one of ``wire.problem_types``, the ``type`` of a problem document.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class NotPermitted(Refused):
    """The caller, as the kernel names it, may not do this."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="not-permitted")


class Unchanged(Refused):
    """What was asked for is so already; a caller for whom that is as good is not told of an error."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="out-of-order")


class UsageError(Refused):
    """A flag, a configuration key or an address that means nothing."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="usage")


class Unavailable(Refused):
    """Something outside is in the way: an address in use, a foreign file, a lock that is held."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="unavailable")


class PeerError(StillupError):
    """The other end is gone, was cut short or broke the protocol."""
