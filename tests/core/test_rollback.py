"""Going back to the release before, and calling a rollout off, told as stories."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stillup.core.commands import Terminate
from stillup.core.events import AbortAsked, Exited, ReloadAsked, RollbackAsked, StopAsked
from stillup.core.model import HISTORY
from stillup.core.release import overwritten
from stillup.core.rollback import previous_release
from stillup.core.states import RolloutState, ServiceState
from stillup.core.values import replace
from stillup.errors import Refused, Unchanged
from tests.core.story import NEW, OLD, Story, cutting_over, draining, serving, spawn

FIRST = replace(OLD, fingerprint="1")
SECOND = replace(NEW, fingerprint="2")
THIRD = replace(NEW, directory="/srv/third", label="srv/third", fingerprint="3")


def deployed(*releases: object) -> Story:
    """One generation after the other has served, each of one worker, and those before the last are gone."""
    story = Story()
    for release in releases:
        roll_out(story, ReloadAsked(release, "test"))  # type: ignore[arg-type]
    return story


def roll_out(story: Story, asked: ReloadAsked | RollbackAsked) -> None:
    before = [*story.fleet.workers]
    story.tell(asked)
    (new,) = set(story.fleet.workers) - set(before)
    story.ready(new)
    story.serve(new)
    story.exit(*before)


def booting() -> Story:
    """Generation 1 serves, the one worker of generation 2 is on its way."""
    story = serving(1)
    story.reload()
    return story


def roll_back(story: Story) -> None:
    release = previous_release(story.fleet)
    roll_out(story, RollbackAsked(release, release.fingerprint, "test"))


def test_a_rollback_is_a_rollout_of_the_release_before() -> None:
    """It boots beside what serves, and says which rollout it takes back."""
    story = deployed(FIRST, SECOND)
    assert previous_release(story.fleet) == FIRST
    story.tell(RollbackAsked(FIRST, "1", "asked"))
    assert story.orders == [spawn(3, 3, 1, FIRST)]
    assert (story.rollout(3).release, story.rollout(3).rolls_back) == (FIRST, 2)


def test_asked_again_it_goes_further_back() -> None:
    """Two rollbacks of three releases end at the first; then there is nothing before."""
    story = deployed(FIRST, SECOND, THIRD)
    roll_back(story)
    assert story.fleet.serving is not None
    assert story.fleet.serving.release == SECOND
    roll_back(story)
    assert story.fleet.serving.release == FIRST
    with pytest.raises(Refused, match="no release is known that served before srv/old") as caught:
        previous_release(story.fleet)
    assert caught.value.code == "no-previous-release"


def test_after_a_rollback_and_a_reload_the_way_leads_over_what_served() -> None:
    """What was taken back and then replaced is not gone back to; what was served between is."""
    story = deployed(FIRST, SECOND)
    roll_back(story)
    roll_out(story, ReloadAsked(THIRD, "test"))
    assert previous_release(story.fleet) == FIRST


def test_the_one_that_crashed_is_not_gone_back_to() -> None:
    """A rollback right after a release was taken back by itself does not bring back the one that crashes."""
    story = Story(2)
    for release, first in ((FIRST, 1), (SECOND, 3)):
        story.tell(ReloadAsked(release, "test"))
        story.ready(first, first + 1)
        story.serve(first, first + 1)
    story.exit(1, 2)
    story.tell(Exited(3, "killed by SIGSEGV"), Exited(4, "killed by SIGSEGV"))
    assert story.rollout(2).state is RolloutState.ROLLED_BACK
    story.ready(7, 8)
    story.serve(7, 8)
    assert story.fleet.serving is not None
    assert story.fleet.serving.release == FIRST
    with pytest.raises(Refused, match="no release is known"):
        previous_release(story.fleet)


def test_reloads_of_the_same_are_passed_over() -> None:
    """A service that was reloaded to renew its workers still has the release before that."""
    story = deployed(FIRST, SECOND, SECOND, SECOND)
    assert previous_release(story.fleet) == FIRST


def test_what_is_forgotten_is_not_gone_back_to() -> None:
    """So many reloads of the same later, what was before is not known any more."""
    story = deployed(FIRST, *[SECOND] * (HISTORY + 2))
    with pytest.raises(Refused, match="no release is known"):
        previous_release(story.fleet)


def test_a_release_changed_in_place_is_refused() -> None:
    """What it was is nowhere any more: refused, and nothing happens."""
    story = deployed(FIRST, SECOND)
    before = story.fleet
    with pytest.raises(Refused, match="changed in place") as caught:
        story.tell(RollbackAsked(FIRST, "another", "asked"))
    assert (caught.value.code, story.fleet) == ("release-overwritten", before)


def test_a_release_that_was_put_over_the_one_before_is_not_the_same() -> None:
    """A service whose directory is changed in place has a release before, which is refused, rather than none."""
    over = replace(FIRST, fingerprint="1 changed")
    story = deployed(FIRST, over)
    assert previous_release(story.fleet) == FIRST
    assert overwritten(FIRST, over)
    with pytest.raises(Refused, match="changed in place"):
        story.tell(RollbackAsked(FIRST, "1 changed", "asked"))


def test_what_changed_while_it_was_looked_at_is_asked_again() -> None:
    """Between the look at the disk and the request another release may have been put into service."""
    story = deployed(FIRST, SECOND)
    roll_out(story, ReloadAsked(THIRD, "test"))
    with pytest.raises(Refused, match="meanwhile") as caught:
        story.tell(RollbackAsked(FIRST, "1", "asked"))
    assert caught.value.code == "out-of-order"


def test_a_release_of_which_only_the_name_is_known_is_refused() -> None:
    """An old record has the names of old releases, not what they ran with."""
    story = deployed(replace(FIRST, whole=False), SECOND)
    with pytest.raises(Refused, match=r"of srv/old, .* only the name") as caught:
        previous_release(story.fleet)
    assert caught.value.code == "no-previous-release"


@pytest.mark.parametrize(
    ("story", "says"),
    [
        pytest.param(Story, "the service is starting", id="nothing serves"),
        pytest.param(booting, "'stillup abort' calls it off", id="a rollout is under way"),
        pytest.param(serving, "no release is known", id="the first release"),
    ],
)
def test_when_there_is_nothing_to_go_back_to(story: Callable[[], Story], says: str) -> None:
    """Each says what to do instead."""
    with pytest.raises(Refused, match=says):
        previous_release(story().fleet)


@pytest.mark.parametrize("story", [booting, cutting_over])
def test_a_rollout_is_called_off(story: Callable[[], Story]) -> None:
    """Before its cut-over: it is aborted, its workers leave, and what serves goes on."""
    told = story()
    told.tell(AbortAsked("asked"))
    rollout = told.rollout(2)
    assert (rollout.state, rollout.reason) == (RolloutState.ABORTED, "called-off")
    assert told.fleet.serving is not None
    assert told.fleet.serving.id == 1
    assert told.fleet.state is ServiceState.SERVING
    assert told.news["rollout.aborted"]["reason"] == "called-off"


def test_workers_that_never_served_are_ended() -> None:
    """Those of a generation that was called off while it booted get SIGTERM."""
    story = booting()
    story.tell(AbortAsked("asked"))
    assert story.orders == [Terminate(2)]


@pytest.mark.parametrize(
    ("story", "says"),
    [
        pytest.param(serving, "'stillup rollback' takes one back", id="none under way"),
        pytest.param(draining, "'stillup rollback' takes one back", id="after the cut-over"),
    ],
)
def test_only_before_the_cut_over(story: Callable[[], Story], says: str) -> None:
    """What serves already is not called off but rolled back."""
    told = story()
    before = told.fleet
    with pytest.raises(Refused, match=says):
        told.tell(AbortAsked("asked"))
    assert told.fleet == before


def test_the_first_rollout_is_not_called_off() -> None:
    """Nothing would be left; a stop is what ends a service."""
    story = Story()
    story.reload(FIRST)
    with pytest.raises(Refused, match="'stillup stop'"):
        story.tell(AbortAsked("asked"))


def test_a_service_that_stops_rolls_nothing_back() -> None:
    """A stop is for good."""
    story = deployed(FIRST, SECOND)
    story.tell(StopAsked("test"))
    with pytest.raises(Refused, match="nothing serves"):
        story.tell(RollbackAsked(FIRST, "1", "asked"))


def test_whose_release_may_have_changed_says_so() -> None:
    """Of a new generation's nothing can have changed yet; of a replacement's or a rollback's it can."""
    story = serving(1)
    assert story.again == {1: False}
    story.tell(Exited(1, "killed by SIGSEGV"))
    assert story.again == {1: False, 2: True}
    story = deployed(FIRST, SECOND)
    story.tell(RollbackAsked(FIRST, "1", "asked"))
    assert story.again == {1: False, 2: False, 3: True}


def roll_back_to(story: Story, generation: int) -> None:
    release = previous_release(story.fleet, generation)
    roll_out(story, RollbackAsked(release, release.fingerprint, "test", generation))


def test_back_to_a_generation_takes_back_all_since() -> None:
    """From there a rollback goes on to what was before that one, as if nothing had been in between."""
    fourth = replace(NEW, directory="/srv/fourth", label="srv/fourth", fingerprint="4")
    story = deployed(FIRST, SECOND, THIRD, fourth)
    roll_back_to(story, 2)
    assert story.fleet.serving is not None
    assert (story.fleet.serving.id, story.fleet.serving.release) == (5, SECOND)
    assert story.rollout(5).rolls_back == 3
    assert previous_release(story.fleet) == FIRST
    roll_back_to(story, 4)
    assert story.fleet.serving.release == fourth


def test_back_to_what_serves_is_nothing_to_do() -> None:
    """By the number of the generation that serves, and of one that ran the same."""
    story = deployed(FIRST, SECOND)
    roll_back(story)
    before = story.fleet
    for generation in (1, 3):
        with pytest.raises(Unchanged, match=f"gen 3 runs srv/old, as gen {generation} did"):
            previous_release(story.fleet, generation)
        with pytest.raises(Unchanged):
            story.tell(RollbackAsked(FIRST, "1", "test", generation))
    assert story.fleet == before


@pytest.mark.parametrize("generation", [2, 3, 9])
def test_back_to_what_never_served(generation: int) -> None:
    """One that was rejected, or is not known."""
    story = deployed(FIRST)
    story.reload(SECOND)
    story.exit(2)
    with pytest.raises(Refused, match=f"no gen {generation} is known that served; 'stillup history'") as caught:
        previous_release(story.fleet, generation)
    assert caught.value.code == "no-previous-release"


def test_back_to_a_generation_of_which_only_the_name_is_known() -> None:
    """As without a number; and what was changed in place is refused, too."""
    story = deployed(replace(FIRST, whole=False), SECOND, THIRD)
    with pytest.raises(Refused, match=r"of srv/old, .* only the name"):
        previous_release(story.fleet, 1)
    with pytest.raises(Refused, match="changed in place"):
        story.tell(RollbackAsked(SECOND, "another", "asked", 2))


def test_what_replaced_it_may_know_it_still() -> None:
    """A record has the last two rollouts whole: with what they brought, and what they replaced."""
    story = deployed(FIRST, SECOND, THIRD)
    slim = replace(story.rollout(1), release=replace(FIRST, whole=False))
    story.fleet = story.fleet.with_rollout(slim)
    assert previous_release(story.fleet, 1) == FIRST
