"""The watch of a canary, for people."""

from __future__ import annotations

from typing import Final

from stillup.core.watch import Verdict
from stillup.wire.api_shapes import RolloutView
from stillup.wire.watch_views import SideView, WatchView

_PASSED: Final[dict[str, str]] = {
    Verdict.PASS: "passed",
    Verdict.PROMOTED: "promoted",
    Verdict.UNGATED: "not judged, and lives",
}


def watch_lines(rollout: RolloutView) -> list[str]:
    """How the canary of a rollout does: a line, and another while it is held; none before it is watched, and after."""
    watch = rollout.watch
    if watch is None or watch.watched_for is None:
        return []
    what = f"{watch.workers}/{rollout.workers_wanted} on gen {rollout.generation}{figures(watch)}"
    lines = [f"  canary    {what:<64}  {watch.watched_for:.0f}/{watch.lasts:.0f} s"]
    if watch.held_for is not None:
        back = f"promote, abort, or goes back in {_minutes(watch.goes_back_in or 0.0)}"
        lines.append(f"  hold      {_doubt(watch)}; {back}")
    return lines


def passed_line(rollout: RolloutView) -> str:
    """That a canary has passed, and how; empty of one that has not."""
    watch = rollout.watch
    if watch is None or (how := _PASSED.get(watch.verdict or "")) is None:
        return ""
    return f"  canary    {how}{figures(watch)}"


def figures(watch: WatchView) -> str:
    """What a canary is judged by, with what the old workers have; empty before the first look."""
    old, new = watch.old, watch.new
    if old is None or new is None:
        return ""
    return (
        f", {watch.share:.0%} of requests, 5xx {_errors(new):.1f} % (old {_errors(old):.1f}), "
        f"p99 {new.p99 * 1000:.0f} ms ({old.p99 * 1000:.0f})"
    ).replace("% of", " % of", 1)


def _doubt(watch: WatchView) -> str:
    """Why it cannot be told."""
    old, new = watch.old, watch.new
    if watch.reason == "few-requests" and old is not None and new is not None:
        fewest = min(old.requests, new.requests)
        return f"{fewest} of {watch.least} requests" if fewest < watch.least else "next to no requests of late"
    if watch.reason == "silent":
        return "not all new workers serve, and are heard"
    if watch.reason == "share":
        return f"{watch.share:.0%} of the requests are not its part".replace("%", " %", 1)
    return f"worse in {watch.reason}, and not yet for sure"


def _errors(side: SideView) -> float:
    return 100 * side.errors / side.requests if side.requests else 0.0


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02}s" if minutes else f"{rest} s"
