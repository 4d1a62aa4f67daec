"""What lets a page in: a key in its address, good once and for a minute, for which it gets a token of its own."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Final

GOOD_FOR: Final = 60.0
"""Seconds that a key is good for."""
MOST: Final = 16
"""Keys, and pages, at a time: of more the oldest are forgotten."""
_BYTES: Final = 32


class DashboardKeys:
    """Those that were given out. ``now``: seconds, by a clock that only goes forward."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._keys: deque[tuple[str, float]] = deque(maxlen=MOST)
        self._tokens: deque[str] = deque(maxlen=MOST)

    def issue(self) -> str:
        """A new key, for the fragment of an address: that is sent to nobody, and stands in no log."""
        key = secrets.token_urlsafe(_BYTES)
        self._keys.append((key, self._now() + GOOD_FOR))
        return key

    def redeem(self, said: str) -> str | None:
        """The token for a key, which is good no more; None if it is not, was used, or is too old."""
        found = next((one for one in tuple(self._keys) if _are_equal(one[0], said)), None)
        if found is None:
            return None
        self._keys.remove(found)
        if self._now() >= found[1]:
            return None
        token = secrets.token_urlsafe(_BYTES)
        self._tokens.append(token)
        return token

    def knows(self, said: str) -> bool:
        """Whether that is a page's token."""
        return any([_are_equal(token, said) for token in self._tokens])  # noqa: C419 - each is looked at


def _are_equal(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode(), other.encode(errors="replace"))
