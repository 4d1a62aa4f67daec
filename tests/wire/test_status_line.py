"""The service in one line, phase by phase."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stillup.core.events import (
    AbortAsked,
    Exited,
    HelloSaid,
    ProbeAnswered,
    RefusalNoted,
    Spawned,
    StopAsked,
    WorkerBootFailed,
)
from stillup.core.values import replace
from stillup.core.worker_settings import WorkerSettings
from stillup.wire.status_line import status_line
from tests.core.story import NEW, Story, cutting_over, draining, serving, standing_by

INSIST = "'stillup reload --force' deploys it again"


def booting() -> Story:
    story = serving(2)
    story.reload()
    return story


def unhealthy() -> Story:
    story = serving(2)
    story.reload(replace(NEW, settings=WorkerSettings(health_path="/healthz?token=7")))
    story.tell(Spawned(3, 103), HelloSaid(3), ProbeAnswered(3, 503))
    return story


def rejected() -> Story:
    story = booting()
    story.tell(WorkerBootFailed(3, "import", "no module"), Exited(3, "exited 1"), Exited(4, "exited 0"))
    return story


def called_off() -> Story:
    story = booting()
    story.tell(AbortAsked("asked"), Exited(3, "exited 0"), Exited(4, "exited 0"))
    return story


def rolled_back() -> Story:
    story = draining(1)
    story.exit(1)
    story.die(2, age=1.0)
    story.die(3, age=1.0)
    story.ready(4)
    story.serve(4)
    return story


def refused() -> Story:
    story = rolled_back()
    story.tell(RefusalNoted("SIGHUP", "rolled-back-before", "no"))
    return story


def refused_and_reloaded() -> Story:
    story = serving(2)
    story.tell(RefusalNoted("SIGHUP", "release", "no"))
    story.now += 1.0
    story.reload()
    return story


def crashing() -> Story:
    story = serving(2)
    story.tell(Exited(1, "killed by SIGSEGV"))
    story.tell(Exited(3, "killed by SIGSEGV"))
    return story


def waiting() -> Story:
    story = draining(1)
    for first in (3, 4):
        story.reload()
        if story.fleet.last_worker >= first:
            story.ready(first)
            story.serve(first)
    return story


def stopping() -> Story:
    story = serving(2)
    story.tell(StopAsked("asked"))
    return story


@pytest.mark.parametrize(
    ("story", "line"),
    [
        (Story, "starting"),
        (serving, "gen 1 serves, 2 of 2 workers"),
        (booting, "gen 1 serves, 2 of 2 workers; gen 2 boots"),
        (unhealthy, "gen 1 serves, 2 of 2 workers; gen 2 boots, /healthz 503"),
        (cutting_over, "gen 1 serves, 1 of 1 workers; gen 2 boots"),
        (draining, "gen 2 serves, 1 of 1 workers; gen 1 drains"),
        (waiting, "gen 3 serves, 1 of 1 workers; a reload waits; gen 1, 2 drains"),
        (rejected, "gen 2 rejected (import); gen 1 serves, 2 of 2 workers"),
        (
            rolled_back,
            f"gen 2 crashed, rolled back ({INSIST}); gen 3 serves, 1 of 1 workers",
        ),
        (
            refused,
            f"reload refused (rolled-back-before; {INSIST}); gen 3 serves, 1 of 1 workers",
        ),
        (refused_and_reloaded, "gen 1 serves, 2 of 2 workers; gen 2 boots"),
        (called_off, "gen 1 serves, 2 of 2 workers"),
        (crashing, "gen 1 serves, 1 of 2 workers; 1 kept waiting, since they keep dying"),
        (stopping, "stopping; gen 1 drains"),
        (standing_by, "gen 2 serves, 1 of 1 workers; gen 1 stands by"),
    ],
)
def test_where_the_service_stands(story: Callable[[], Story], line: str) -> None:
    """What serves comes first, but for a release that was rejected last."""
    assert status_line(story().fleet) == line
