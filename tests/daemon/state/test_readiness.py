"""What the service manager hears, in which order: its deadlines count from what it knows."""

from __future__ import annotations

from stillup.core.events import HookEnded, RefusalNoted, StopAsked
from stillup.core.hook_settings import Hooks
from stillup.core.policy import Policy
from stillup.core.values import replace
from stillup.daemon.state.readiness import Readiness
from stillup.wire.status_line import status_line
from tests.core.story import Story, crashed, serving

HOOKED = Policy(hooks=Hooks(before=("migrate",)))


class Manager:
    """The one seam: the words that are said to it are kept here."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.extended = 0.0

    def extend(self, seconds: float) -> None:
        self.said.append("extend")
        self.extended = seconds

    def __getattr__(self, word: str) -> object:
        return lambda *_: self.said.append(word)


class Service:
    """A story that a manager hears."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.manager = Manager()
        self._readiness = Readiness(self.manager, lambda: story.fleet)  # type: ignore[arg-type]

    def hears(self) -> list[str]:
        """The words for what is new in the story, without those that only say how it stands."""
        self.manager.said.clear()
        for kind, data in self.story.news.items():
            self._readiness.hear(kind, data)
        return [word for word in self.manager.said if word != "status"]


def test_a_stop_is_said_before_its_time_is_asked_for() -> None:
    """A manager extends a deadline that runs; of a stop by the control API it knows of none before STOPPING."""
    service = Service(serving(1))
    service.story.tell(StopAsked("test"))
    assert service.hears() == ["stopping", "extend"]


def test_a_reload_that_a_stop_ends_is_not_ready() -> None:
    """What is stopping is not READY again, though its reload has come to its end."""
    service = Service(serving(1))
    service.story.reload()
    assert service.hears() == ["reloading"]
    service.story.tell(StopAsked("test"))
    assert "rollout.aborted" in service.story.news
    assert service.hears() == ["stopping", "extend"]


def test_a_reload_that_is_refused_is_the_status() -> None:
    """Nothing was begun, so nothing is READY again; the line says that it was refused, and how to insist."""
    service = Service(crashed())
    service.story.tell(RefusalNoted("SIGHUP", "rolled-back-before", "no"))
    assert service.hears() == []
    assert service.manager.said == ["status"]
    assert "'stillup reload --force'" in status_line(service.story.fleet)


def test_a_hook_has_its_time() -> None:
    """A manager that knows of a reload, or of a start, ends no migration: it is told how long that may take."""
    first = Service(Story(1, HOOKED))
    first.story.reload()
    assert first.hears() == ["extend"]
    service = Service(serving(1))
    service.story.fleet = replace(service.story.fleet, policy=HOOKED)
    service.story.reload()
    assert service.hears() == ["reloading", "extend"]
    service.story.tell(HookEnded(1, "exited 1"))
    assert service.hears() == ["ready"]


def test_a_start_of_many_has_its_time() -> None:
    """A manager that waits for a start is told how long its workers may take that boot one after another."""
    given = []
    for workers in (1, 3):
        service = Service(Story(workers, Policy(boot_concurrency=2, boot_timeout=50.0)))
        service.story.reload()
        assert "extend" in service.hears()
        given.append(service.manager.extended)
    assert given[1] - given[0] == 50.0


def test_a_hook_after_a_rollout_is_nothing_that_is_waited_for() -> None:
    """The reload is over for the manager when the new generation serves."""
    service = Service(serving(1))
    service.story.fleet = replace(service.story.fleet, policy=Policy(hooks=Hooks(after=("tell",))))
    service.story.reload()
    assert service.hears() == ["reloading"]
    service.story.ready(2)
    service.story.serve(2)
    assert service.hears() == ["ready"]
