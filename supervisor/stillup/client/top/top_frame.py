"""What ``stillup top`` shows: lines made of what is known, and of nothing else. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from stillup.client.live_service import Moment
from stillup.client.status_ages import aged
from stillup.client.text_output import STYLES
from stillup.client.top.top_bars import legend
from stillup.client.top.top_lines import Line, Styled, duration, line, size, wrapped
from stillup.client.top.top_rates import SUPERVISOR, Rates
from stillup.client.top.top_rollout import rollout_lines
from stillup.client.top.top_table import table
from stillup.core.listeners import ListenerState
from stillup.wire.api_shapes import Status
from stillup.wire.event_encoding import AnyEvent

Page = Literal["workers", "events"]
_INDENT: Final = 12
"""Where what is said of a step begins."""
_SAID: Final = 3
"""Lines for why no supervisor answers, and for what came of a request, at most."""
_EVENTS: Final = 4
"""Lines for events, their title included, that are kept free if there is room for all else."""
_MOST_EVENTS: Final = 10
"""Events of a frame whose height is not limited."""


class TopView(msgspec.Struct, frozen=True):
    """What the one who looks has chosen, and how large the terminal is, in columns and lines."""

    width: int
    height: int | None
    """None: all is shown, and nothing below it."""
    page: Page = "workers"
    keys: str = ""
    """The keys that do something, as the last line names them."""
    question: str = ""
    """What is to be answered with y or n."""
    said: Styled = ("", "")
    """What came of the last request."""


def frame(moment: Moment, rates: Rates, view: TopView, now: float) -> list[Line]:
    """The whole screen, from the top; ``now`` by the monotonic clock.

    A frame whose height is limited has just so many lines. What is left of a time is counted on between two looks, but
    not while no supervisor answers.
    """
    if moment.status is None:  # as long as nobody has answered
        return _filled([line(view.width, (moment.trouble or "waits for an answer", "red"))], [], view)
    since = max(0.0, now - moment.at)
    status = aged(moment.status, since) if not moment.trouble else moment.status
    trouble = _trouble(moment.trouble, since, view.width) if moment.trouble else []
    head = [*trouble, *_head(status, rates, view.width)]
    foot = _foot(view) if view.height is not None else []
    if view.page == "events":
        room = view.height - len(head) - len(foot) if view.height is not None else _MOST_EVENTS
        return _filled([*head, *_events(moment.events, view.width, room)], foot, view)
    return _filled([*head, *_body(status, rates, moment.events, view, len(head) + len(foot))], foot, view)


def _filled(body: list[Line], foot: list[Line], view: TopView) -> list[Line]:
    """As many lines as the terminal has, the last of which are the foot."""
    if view.height is None:
        return body
    foot = foot[-view.height :]
    above = view.height - len(foot)
    return [*body[:above], *([()] * (above - len(body))), *foot]


def _body(status: Status, rates: Rates, events: Sequence[AnyEvent], view: TopView, taken: int) -> list[Line]:
    """Rollouts, workers and events, in the lines that are left."""
    width = view.width
    rollouts = [part for text, style in rollout_lines(status) for part in wrapped(width, text, style, 2, _INDENT)]
    classes = legend((worker.classes for one in status.generations for worker in one.workers), width)
    marks = [classes] if classes is not None else []
    if view.height is None:
        workers = table(status, rates, width, 1 << 30)
        return [*rollouts, *workers, *marks, *_events(events, width, _MOST_EVENTS + 1)]
    left = view.height - taken
    # The workers come first, but never alone: a third is for what happens to all of them, and some for what happened.
    rollouts = rollouts[: max(1, left // 3)] if left > _EVENTS else []
    left -= len(rollouts)
    for_events = min(len(events) + 1, _EVENTS) if events and left > 3 * _EVENTS else 0
    marks = marks if left - for_events > _EVENTS else []
    workers = table(status, rates, width, left - len(marks) - for_events)
    left -= len(workers) + len(marks)
    return [*rollouts, *workers, *marks, *_events(events, width, left)]


def _trouble(why: str, seconds: float, width: int) -> list[Line]:
    text = f"no supervisor answers for {duration(seconds)}: {why}; what was known last is below"
    return wrapped(width, text, "red", _SAID)


def _head(status: Status, rates: Rates, width: int) -> list[Line]:
    """The service and its supervisor; where it listens; whether it is cordoned."""
    rate = rates.get((SUPERVISOR, status.pid))
    cpu = f"  cpu {100 * rate.cpu:.1f} %" if rate is not None else ""
    memory = f"  mem {size(status.memory)}" if status.memory else ""
    state = (status.state, STYLES.get(status.state, ""))
    up = f"  up {duration(status.uptime)}"
    made = [line(width, (status.name, "bold"), "  ", state, f"{up}   supervisor pid {status.pid}{cpu}{memory}")]
    listeners: list[str] = []
    for one in status.listeners:
        address = one.address if one.name == one.address else f"{one.name} {one.address}"
        listeners.append(address if one.state == ListenerState.SERVING else f"{address} ({one.state})")
    if listeners:
        made.append(line(width, f"  listens   {', '.join(listeners)}"))
    made += [
        line(width, (f"            {one.address}: {one.trouble}: nobody can connect", "red"))
        for one in status.listeners
        if one.trouble
    ]
    if status.cordoned_for is not None:
        since = duration(status.cordoned_for)
        made.append(line(width, (f"  cordoned  for {since}: no new clients are to be sent", "yellow")))
    return made


def _events(events: Sequence[AnyEvent], width: int, room: int) -> list[Line]:
    """A title, and the newest events that there is room for below it, the oldest of them first."""
    if room < 2 or not events:  # noqa: PLR2004 - the title and one
        return []
    title = line(width, (f"  {'event':<{width - 2}}", "reverse"))
    return [title, *(line(width, f"  {_at(event)}  {event.text}") for event in events[1 - room :])]


def _at(event: AnyEvent) -> str:
    at = event.at
    with contextlib.suppress(OverflowError):  # in the year 1, or in 9999
        at = at.astimezone()
    return f"{at:%H:%M:%S}"


def _foot(view: TopView) -> list[Line]:
    """What came of a request, if one was made; and the keys, or what is asked."""
    text, style = view.said
    said = wrapped(view.width, text, style, _SAID) if text else []
    if view.question:
        return [*said, line(view.width, (view.question, "bold yellow"))]
    return [*said, line(view.width, (view.keys, "reverse"))]
