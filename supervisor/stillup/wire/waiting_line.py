"""Who is waited for at a stop, in one line: for the supervisor's log and for the command that waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from stillup.core.drain import CONNECTION, RULES
from stillup.core.worker_figures import BACKGROUND

_NAMES: Final = {
    **{str(kind): rule.names for kind, rule in RULES.items()},
    BACKGROUND: ("background task", "background tasks"),
}
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
            of_workers = kinds.setdefault(_NAMES.get(kind, CONNECTION), {})
            of_workers[worker] = of_workers.get(worker, 0) + count
    order = [*(names for names in _NAMES.values() if names != CONNECTION), CONNECTION]
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
