"""What the service manager hears, in which order: its deadlines count from what it knows."""

from __future__ import annotations

from supervisor.core.events import StopAsked
from supervisor.daemon.readiness import Readiness
from tests.core.telling import Story, serving


class Manager:
    """The one seam: the words that are said to it are kept here."""

    def __init__(self) -> None:
        self.said: list[str] = []

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
