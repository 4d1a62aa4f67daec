"""What the health probes of booting workers were answered."""

from __future__ import annotations

import pytest

from stillup.core.arrivals import TELL_PAUSE
from stillup.core.events import BecameReady, HelloSaid, ProbeAnswered, Spawned
from stillup.core.values import replace
from stillup.core.worker_settings import WorkerSettings
from stillup.errors import Refused
from tests.core.story import NEW, OLD, Story

PROBED = replace(NEW, settings=WorkerSettings(health_path="/healthz?token=secret"))


@pytest.fixture
def story() -> Story:
    """One worker boots that has a probe."""
    told = Story()
    told.reload(PROBED)
    told.tell(Spawned(1, 101), HelloSaid(1))
    return told


def test_the_first_answers_are_no_news(story: Story) -> None:
    """An answer is kept as it comes, and announced once it has not become healthy for a moment."""
    story.tell(ProbeAnswered(1, 503))
    assert not story.news
    assert story.fleet.workers[1].unhealthy is not None
    assert story.fleet.workers[1].unhealthy.status == 503
    story.now += TELL_PAUSE
    story.tell(ProbeAnswered(1, 503))
    told = {"worker": "1.1", "pid": 101, "path": "/healthz", "status": 503, "seconds": TELL_PAUSE}
    assert story.news == {"worker.unhealthy": told}


def test_only_what_is_new_is_told(story: Story) -> None:
    """The same answer is announced once; another one again, and no sooner than a pause after the one before."""
    for seconds, status, tells in ((0, 503, 0), (1, 503, 1), (2, 503, 0), (0, 404, 1), (0.5, 500, 0), (0.5, 0, 1)):
        story.now += seconds
        story.tell(ProbeAnswered(1, status))
        assert len(story.news) == tells, (seconds, status)
    assert story.news["worker.unhealthy"]["status"] is None


@pytest.mark.parametrize("status", [-1, 1, 99, 1000, 2**80])
def test_no_status(story: Story, status: int) -> None:
    """What is no HTTP status counts as no answer."""
    story.tell(ProbeAnswered(1, status))
    assert story.fleet.workers[1].unhealthy is not None
    assert story.fleet.workers[1].unhealthy.status == 0


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("/healthz 200", "/healthz 200"),
        ("the secret is 42 204", "/healthz 204"),
        ("/healthz 200 and the secret is 42", ""),
        ("/healthz \u0662\u0660\u0660", ""),
        ("/healthz 9999", ""),
        ("", ""),
    ],
)
def test_what_a_healthy_worker_says_of_its_probe(story: Story, said: str, shown: str) -> None:
    """Of its words the status counts: which path was asked for is known, and viewers read it."""
    story.tell(BecameReady(1, said))
    assert story.rollout(1).probe == shown


def test_healthy(story: Story) -> None:
    """Once the worker is READY nothing of it is left, and it has no more to say."""
    story.tell(ProbeAnswered(1, 503), BecameReady(1, "/healthz 200"))
    assert story.fleet.workers[1].unhealthy is None
    with pytest.raises(Refused):
        story.tell(ProbeAnswered(1, 503))


def test_without_a_probe() -> None:
    """A worker of a release that has no health path has nothing to say of one."""
    story = Story()
    story.reload(OLD)
    story.tell(Spawned(1, 101), HelloSaid(1))
    with pytest.raises(Refused):
        story.tell(ProbeAnswered(1, 503))
