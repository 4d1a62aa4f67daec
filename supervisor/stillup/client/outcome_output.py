"""What commands print of how rollouts ended and workers died."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from stillup.client.plain_output import Printer
from stillup.core.states import CALLED_OFF
from stillup.wire.api_shapes import DeathView, OutcomeView
from stillup.wire.history_view import RevisionView

SHOWN: Final = 6
"""Outcomes and deaths that ``status`` shows; ``--json`` has more."""
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_UNITS: Final = ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min"), (1, "s"))


def status_lines(outcomes: Sequence[OutcomeView], deaths: Sequence[DeathView]) -> Iterator[tuple[str, str]]:
    """The last outcomes and deaths, the newest first: each with the style that it has on a terminal."""
    for place, one in enumerate(outcomes[:SHOWN]):
        heading = "last      " if place == 0 else " " * 10
        yield f"  {heading}{_outcome(one)}, {_ago(one.ago)}", "" if one.outcome == "succeeded" else "red"
        if one.message:
            yield f"  {'':<10}  {one.message}", "red"
    for place, death in enumerate(deaths[:SHOWN]):
        heading = "died      " if place == 0 else " " * 10
        yield f"  {heading}{death.id}{_pid(death)} {death.how}, {_ago(death.ago)}", "yellow"


def summary(outcomes: Sequence[OutcomeView], deaths: Sequence[DeathView]) -> str:
    """The last outcome and the last death, for a line of ``ls``; empty if nothing is known."""
    parts = [f"{_verdict(one)} {_ago(one.ago)}" for one in outcomes[:1]]
    parts += [f"{death.id} died {_ago(death.ago)}" for death in deaths[:1]]
    return "; ".join(parts)


def print_history(revisions: Sequence[RevisionView]) -> None:
    """A line for each generation."""
    out = Printer()
    wide = max((len(one.release) for one in revisions), default=0)
    for one in revisions:
        reason = f" ({one.reason})" if one.reason else ""
        back = f", takes back rollout {one.rolls_back}" if one.rolls_back is not None else ""
        what = f"{one.outcome.replace('-', ' ')}{reason}, {_ago(one.ago)}{back}"
        style = {"serves": "green", "succeeded": ""}.get(one.outcome, "red")
        out.line(f"gen {one.generation:>4}  {one.release:<{wide}}  ", (what, style), f"   {one.why}")


def _outcome(one: OutcomeView) -> str:
    release = f"   {one.release}" if one.release else ""
    failure = f": {one.failure}" if one.failure else ""
    return f"{_verdict(one)}{failure}{release} ({one.why})"


def _verdict(one: OutcomeView) -> str:
    name = f"gen {one.generation}" if one.generation is not None else f"reload {one.rollout}"
    match one.outcome:
        case "succeeded" if one.reason:  # it crashes, and there was nothing to go back to
            return f"{name} crashes, and stays ({one.reason})"
        case "succeeded":
            return f"{name} ok"
        case "refused":
            return f"reload refused ({one.reason})"
        case "aborted" if one.reason == CALLED_OFF:
            return f"{name} called off"
        case "aborted":
            return f"{name} rejected ({one.reason})"
        case how:
            return f"{name} {how.replace('-', ' ')} ({one.reason})"


def _pid(death: DeathView) -> str:
    return f" (pid {death.pid})" if death.pid is not None else ""


def _ago(seconds: float) -> str:
    """Such as ``5 min ago``."""
    size, unit = next((pair for pair in _UNITS if seconds >= pair[0]), _UNITS[-1])
    return f"{seconds // size:.0f} {unit} ago"
