"""The workers, a row each, below their generations: as many columns as there is room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from stillup.client.text_output import STYLES, ails_text, waits_text
from stillup.client.top.top_bars import bar, connections
from stillup.client.top.top_lines import Line, Styled, column, count, duration, line, size
from stillup.client.top.top_rates import Rate, Rates, key_of
from stillup.core.amounts import amount
from stillup.core.drain import ANSWERING
from stillup.wire.api_shapes import GenerationView, RolloutView, Status, VacancyView, WorkerView

Shown = Callable[[WorkerView, Rate | None], str]
_LATE: Final = 0.1
"""Seconds by which a heartbeat came late that are worth a colour."""
_BAR: Final = 12
"""Columns for a bar, or in narrow terminals a third of what there is, before any column of figures has room."""


class TopColumn(msgspec.Struct, frozen=True):
    """A column of figures, each of which ends at its right edge."""

    title: str
    width: int
    need: int
    """The columns are shown in the order of this number, as far as there is room."""
    shown: Shown


def _percent(_: WorkerView, rate: Rate | None) -> str:
    return f"{100 * rate.cpu:.1f}" if rate is not None else "-"


def _requests(_: WorkerView, rate: Rate | None) -> str:
    return count(rate.requests) if rate is not None else "-"


COLUMNS: Final = (
    TopColumn("pid", 8, 6, lambda worker, _: str(worker.pid or "-")),
    TopColumn("age", 7, 7, lambda worker, _: duration(worker.age)),
    TopColumn("cpu %", 7, 1, _percent),
    TopColumn("mem", 6, 3, lambda worker, _: size(worker.memory)),
    TopColumn("req/s", 7, 2, _requests),
    TopColumn("busy", 6, 4, lambda worker, _: str(busy(worker))),
    TopColumn("lag ms", 8, 5, lambda worker, _: f"{worker.lag * 1000:.0f}"),
)
_ID, _STATE, _CONNECTIONS = 8, 10, 7


def busy(worker: WorkerView) -> int:
    """Its requests in progress."""
    return sum(worker.classes.get(kind, 0) for kind in ANSWERING)


def columns_for(width: int) -> list[TopColumn]:
    """Those that such a terminal has room for, in their order."""
    left = width - 2 - _ID - _STATE - _CONNECTIONS
    left -= min(_BAR, left // 3)
    chosen = []
    for one in sorted(COLUMNS, key=lambda one: one.need):
        if one.width > left:
            break
        chosen.append(one)
        left -= one.width
    return [one for one in COLUMNS if one in chosen]


def table(status: Status, rates: Rates, width: int, height: int) -> list[Line]:
    """The table in at most so many lines; those workers that it has no room for are counted in its place."""
    if height < 1:
        return []
    columns = columns_for(width)
    titles = "".join(f"{one.title:>{one.width}}" for one in columns)
    heading = f"  {'worker':<{_ID}}{'state':<{_STATE}}{titles}  connections"
    most = max((_number(worker) for one in status.generations for worker in one.workers), default=0)
    made = [line(width, (heading, "reverse"))]
    if not status.generations:
        made.append(line(width, "  no workers"))
    wanted = [len(one.workers) + len(one.waiting) for one in status.generations]
    rooms = _rooms(wanted, height - len(made) - len(wanted))
    for one, number, room in zip(status.generations, wanted, rooms, strict=True):
        made.append(_generation(one, status.rollout, width))
        waiting, workers, left_out = _chosen(one, room) if number > room else (one.waiting, one.workers, 0)
        made += [_worker(worker, rates, columns, most, width) for worker in workers]
        made += [_vacancy(vacancy, width) for vacancy in waiting]
        if left_out:
            made.append(line(width, (f"    and {amount(left_out, 'more worker', 'more workers')}", "dim")))
    return made[:height]


def _chosen(one: GenerationView, room: int) -> tuple[list[VacancyView], list[WorkerView], int]:
    """What is shown in so many lines, where that is not all: slots that wait, workers, and how many are left out.

    Those come first that have something to say. One line is for the number; no line, no number.
    """
    if room < 1:
        return [], [], 0
    waiting = one.waiting[: room - 1]
    first = sorted(range(len(one.workers)), key=lambda place: not ails_text(one.workers[place]))
    workers = [one.workers[place] for place in sorted(first[: room - 1 - len(waiting)])]
    return waiting, workers, len(one.waiting) + len(one.workers) - len(waiting) - len(workers)


def _rooms(wanted: Sequence[int], lines: int) -> list[int]:
    """Share lines out: who wants less than an equal part gets that, and the others share what it leaves."""
    rooms = [0] * len(wanted)
    left = max(0, lines)
    for done, place in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        rooms[place] = min(wanted[place], left // (len(wanted) - done))
        left -= rooms[place]
    return rooms


def _generation(one: GenerationView, rollout: RolloutView | None, width: int) -> Line:
    """What is said of a generation above its workers."""
    since = ""
    if one.draining_for is not None:
        since = f" for {duration(one.draining_for)}"
        if rollout is not None and rollout.drain_left is not None and one.id in (rollout.previous, *rollout.waits_for):
            since += f", at most {duration(rollout.drain_left)} more"
    if one.standby_left is not None:
        since = f" for {duration(one.standby_left)} more"
    size_ = amount(len(one.workers), "worker")
    return line(
        width, f"  gen {one.id}  ", (one.state, STYLES.get(one.state, "")), f"{since}   {one.release}   {size_}"
    )


def _worker(worker: WorkerView, rates: Rates, columns: Sequence[TopColumn], most: int, width: int) -> Line:
    rate = rates.get(key_of(worker))
    name = column(f"{worker.id}{'*' if worker.leader else ''}", _ID - 1)
    state = (f" {column(worker.state, _STATE - 1)}", STYLES.get(worker.state, ""))
    hot = worker.lag >= _LATE
    figures: list[Styled] = []
    for one in columns:
        style = "yellow" if hot and one.title == "lag ms" else ""
        figures.append((f"{one.shown(worker, rate):>{one.width}}", style))
    used = 2 + _ID + _STATE + sum(one.width for one in columns) + _CONNECTIONS
    # What is wrong with a worker is worth more than what its connections do.
    note = ails_text(worker).removeprefix(", ") or _oldest(worker)
    style = "red" if worker.hung_for is not None else "yellow"
    room = width - used - (min(len(note), (width - used) // 2) + 1 if note else 0)
    shown = bar(worker.classes, most, room) if not note or room >= _BAR else []
    said: list[Styled] = [(" ", ""), (note, style)] if note else []
    return line(width, f"  {name}", state, *figures, f"{_number(worker):>{_CONNECTIONS - 1}} ", *shown, *said)


def _vacancy(vacancy: VacancyView, width: int) -> Line:
    return line(width, (f"  {column(vacancy.id, _ID - 1)} {'waits':<{_STATE}}{waits_text(vacancy)}", "yellow"))


def _oldest(worker: WorkerView) -> str:
    """Since when it has what it drains, by class."""
    return ", ".join(f"{kind} for {duration(age)}" for kind, age in sorted(worker.oldest.items()))


def _number(worker: WorkerView) -> int:
    return sum(connections(worker.classes).values())
