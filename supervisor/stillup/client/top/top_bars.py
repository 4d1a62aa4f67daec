"""Connections as a bar: as many marks of each class as its part of them is. Marks differ, so colours may be missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from stillup.client.top.top_lines import Line, Styled, line
from stillup.core.drain import RULES, ConnectionClass
from stillup.core.worker_figures import BACKGROUND

MARKS: Final[Mapping[str, tuple[str, str]]] = {
    ConnectionClass.IN_PROGRESS: ("#", "green"),
    ConnectionClass.STREAM: ("~", "cyan"),
    ConnectionClass.WEBSOCKET: ("w", "blue"),
    ConnectionClass.SESSION: ("s", "magenta"),
    ConnectionClass.UPGRADING: ("^", "magenta"),
    ConnectionClass.ANSWERED: ("a", "green"),
    ConnectionClass.HALF_READ: ("h", "yellow"),
    ConnectionClass.UNREAD: ("u", "yellow"),
    ConnectionClass.IDLE: (".", "dim"),
    ConnectionClass.OTHER: ("o", ""),
}
"""The mark of each class and its style, in the order of a bar; one without has that of the first of its family."""
UNKNOWN: Final = ("?", "")
"""That of a class which a later supervisor has."""


def connections(classes: Mapping[str, int]) -> dict[str, int]:
    """How many there are of each class, in the order of a bar; without the tasks that outlive their answers."""
    known = [kind for kind in MARKS if classes.get(kind, 0) > 0]
    others = [kind for kind, number in classes.items() if number > 0 and kind not in MARKS and kind != BACKGROUND]
    return {str(kind): classes[kind] for kind in (*known, *sorted(others))}


def bar(classes: Mapping[str, int], most: int, width: int) -> list[Styled]:
    """One that is ``width`` columns long where there are ``most`` connections.

    Each class that there is has a mark at least, if there is room for so many classes.
    """
    shown = connections(classes)
    total = sum(shown.values())
    if not total or width < 1:
        return []
    long = min(width, max(len(shown), round(width * total / max(most, total))))
    parts = [(kind, number * long / total) for kind, number in shown.items()][:long]
    lengths = {kind: max(1, int(part)) for kind, part in parts}
    # What rounding has left over or taken too much: those are corrected first whose part is farthest from theirs.
    while (missing := long - sum(lengths.values())) != 0:
        step = 1 if missing > 0 else -1
        candidates = [(kind, part) for kind, part in parts if step > 0 or lengths[kind] > 1]
        kind, _ = max(candidates, key=lambda pair: step * (pair[1] - lengths[pair[0]]))
        lengths[kind] += step
    return [(_mark(kind)[0] * number, _mark(kind)[1]) for kind, number in lengths.items()]


def legend(every: Iterable[Mapping[str, int]], width: int) -> Line | None:
    """What the marks mean that are in these bars, with how many there are of each class; None without connections."""
    sums: Counter[str] = Counter()
    for classes in every:
        sums.update(classes)
    shown = connections(sums)
    if not shown and not sums[BACKGROUND]:
        return None
    parts: list[str | Styled] = ["  "]
    for kind, number in shown.items():
        parts += [_mark(kind), f" {kind} {number}   "]
    if sums[BACKGROUND]:
        parts.append(f"{BACKGROUND} {sums[BACKGROUND]}")
    return line(width, *parts)


def _mark(kind: str) -> tuple[str, str]:
    if kind in MARKS or kind not in RULES:
        return MARKS.get(kind, UNKNOWN)
    family = RULES[ConnectionClass(kind)].family
    return next((mark for other, mark in MARKS.items() if RULES[ConnectionClass(other)].family is family), UNKNOWN)
