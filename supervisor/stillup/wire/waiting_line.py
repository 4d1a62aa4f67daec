"""Who is waited for at a stop, in one line: for the supervisor's log and for the command that waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

_NAMES: Final = {
    "in-progress": ("request", "requests"),
    "stream": ("stream", "streams"),
    "websocket": ("WebSocket", "WebSockets"),
    "session": ("WebSocket", "WebSockets"),
    "upgrading": ("handshake of a WebSocket", "handshakes of WebSockets"),
    "answered": ("upload", "uploads"),
    "background": ("background task", "background tasks"),
}
_OTHERS: Final = ("connection", "connections")
"""Such as are idle, or have sent nothing: their ends are spread over a moment."""
MOST_WORKERS: Final = 6
"""That are named; of more only how many there are."""


def waiting_line(classes: Mapping[str, Mapping[str, int]], left: float | None) -> str:
    """Say what is still there.

    Args:
        classes: by worker, how many connections of each class it has.
        left: seconds until the rest is cut; None if that is not known.
    """
    kinds: dict[tuple[str, str], dict[str, int]] = {}
    for worker, counts in classes.items():
        for kind, count in counts.items():
            of_workers = kinds.setdefault(_NAMES.get(kind, _OTHERS), {})
            of_workers[worker] = of_workers.get(worker, 0) + count
    order = [*_NAMES.values(), _OTHERS]
    parts = []
    for names in sorted(kinds, key=order.index):
        total = sum(kinds[names].values())
        if total:
            parts.append(f"{total} {names[total != 1]} ({_named(kinds[names])})")
    at_most = f"; at most {max(0.0, left):.0f} s" if left is not None else ""
    if not parts:
        return f"waiting for {_named(classes)} to shut the app down"
    return f"waiting for {', '.join(parts)}{at_most}"


def _named(workers: Iterable[str]) -> str:
    known = sorted(workers)
    return ", ".join(known) if len(known) <= MOST_WORKERS else f"{len(known)} workers"
