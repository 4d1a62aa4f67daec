"""The service in one line, phase by phase."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from supervisor.core.events import AbortAsked, BootFailed, Exited, StopAsked
from supervisor.wire.headline import headline
from tests.core.telling import Story, cutting_over, draining, serving


def booting() -> Story:
    story = serving(2)
    story.reload()
    return story


def rejected() -> Story:
    story = booting()
    story.tell(BootFailed(3, "import", "no module"), Exited(3, "exited 1"), Exited(4, "exited 0"))
    return story


def called_off() -> Story:
    story = booting()
    story.tell(AbortAsked("asked"), Exited(3, "exited 0"), Exited(4, "exited 0"))
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
        (cutting_over, "gen 1 serves, 1 of 1 workers; gen 2 boots"),
        (draining, "gen 2 serves, 1 of 1 workers; gen 1 drains"),
        (waiting, "gen 3 serves, 1 of 1 workers; a reload waits; gen 1, 2 drains"),
        (rejected, "gen 2 rejected (import); gen 1 serves, 2 of 2 workers"),
        (called_off, "gen 1 serves, 2 of 2 workers"),
        (crashing, "gen 1 serves, 1 of 2 workers; 1 kept waiting, since they keep dying"),
        (stopping, "stopping; gen 1 drains"),
    ],
)
def test_where_the_service_stands(story: Callable[[], Story], line: str) -> None:
    """What serves comes first, but for a release that was rejected last."""
    assert headline(story().fleet) == line
