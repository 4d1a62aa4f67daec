"""How programs that are run around a rollout are shown: in the API, in the service manager's line, in the log."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from stillup.core.events import AbortAsked, HookEnded, HookStarted
from stillup.core.hook_settings import Hooks
from stillup.core.policy import Policy
from stillup.core.values import replace
from stillup.wire import event_feed, fleet_views, log_lines
from stillup.wire.hook_views import HookView
from stillup.wire.log_lines import LogLine
from stillup.wire.status_line import status_line
from tests.core.story import Story, serving

POLICY = Policy(hooks=Hooks(("python", "manage.py", "migrate", "--noinput"), ("tell",)))


def migrating() -> Story:
    """Generation 1 serves, and a reload waits for its hook, which has run for 4 seconds."""
    story = serving(1)
    story.fleet = replace(story.fleet, policy=POLICY)
    story.reload()
    story.tell(HookStarted(1, 501, 1))
    story.now += 4.0
    return story


def shown(story: Story, rollout: int = 2) -> list[HookView]:
    """Those of a rollout."""
    return fleet_views.rollout(story.fleet, story.rollout(rollout), story.now).hooks


RUNS = HookView(1, "before", "manage.py migrate", "running", 2, 2, 501, 4.0, 596.0)


def test_one_that_runs() -> None:
    """With its pid and what is left of its time; the rollout has its number, and no time of its boot."""
    story = migrating()
    assert shown(story) == [RUNS]
    view = fleet_views.rollout(story.fleet, story.rollout(2), story.now)
    assert (view.state, view.generation, view.previous, view.booting_for) == ("preparing", 2, 1, None)
    assert status_line(story.fleet) == "gen 1 serves, 1 of 1 workers; gen 2 waits for its hook, manage.py migrate"


def test_one_that_is_done() -> None:
    """It has run for as long as it took, whenever that is looked at."""
    story = migrating()
    story.tell(HookEnded(1, "exited 0"))
    story.now += 9.0
    assert shown(story) == [replace(RUNS, state="done", left=None)]


def test_those_that_failed() -> None:
    """Each says why; one that has not run took no time."""
    story = migrating()
    story.reload()
    story.tell(AbortAsked("test"))
    assert shown(story) == [replace(RUNS, state="stopping", left=None, reason="superseded")]
    assert shown(story, 3) == [
        HookView(2, "before", "manage.py migrate", "failed", 3, 3, reason="called-off"),
    ]


@pytest.mark.parametrize(
    ("reason", "text", "loudness"),
    [
        ("failed", "hook failed, after 4.0 s: manage.py migrate exited 1", "ERROR"),
        ("timeout", "hook failed, after 4.0 s: manage.py migrate exited 1", "ERROR"),
        ("superseded", "hook manage.py migrate is off: superseded", "INFO"),
    ],
)
def test_how_a_failure_reads(reason: str, text: str, loudness: str) -> None:
    """One that somebody has ended is no error."""
    data = {"rollout": 2, "generation": 2, "hook": "before", "command": "manage.py migrate", "seconds": 4.0}
    data |= {"reason": reason, "why": "manage.py migrate exited 1"}
    event = event_feed.make("hook.failed", data, seq=1, at=datetime(2026, 1, 1, tzinfo=UTC), monotonic=0.0)
    assert (event.text, event.loudness()) == (text, loudness)


def test_a_line_of_the_log() -> None:
    """A hook's stands where a worker's name would, and has no generation."""
    line = LogLine("Applying auth.0001")
    assert log_lines.text(line, "12:00", log_lines.HOOK) == "12:00 INFO    hook  Applying auth.0001"
    assert json.loads(log_lines.json(line, "12:00", log_lines.HOOK)) == {
        "at": "12:00",
        "level": "info",
        "source": "hook",
        "message": "Applying auth.0001",
    }
    said = LogLine('{"message": "x", "source": "supervisor"}')
    assert json.loads(log_lines.json(said, "12:00", log_lines.HOOK))["source"] == "hook"
