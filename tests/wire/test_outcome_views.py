"""How things ended lately, in the control API."""

from __future__ import annotations

import msgspec

from stillup.core.events import AbortAsked, Exited, RefusalNoted, ReloadAsked
from stillup.core.outcome_records import MOST_REMEMBERED
from stillup.wire.api_shapes import DeathView, OutcomeView, without_output
from stillup.wire.history_view import RevisionView
from stillup.wire.outcome_views import deaths, history, outcomes
from stillup.wire.record_format import SCHEMA, Record, decode, encode
from tests.wire.example_fleets import NEW, aborted, after, booting, crashed, look


def test_the_newest_comes_first_and_what_is_under_way_is_none() -> None:
    """A release that crashed, and how the service began; the rollout that takes it back has no outcome yet."""
    assert outcomes(crashed(), 20.0) == [
        OutcomeView("rolled-back", 4.0, 2, 2, "srv/new", "asked by uid 0, pid 7", "crashed", "2.2 (pid 104) exited 7"),
        OutcomeView("succeeded", 18.0, 1, 1, "srv/old", "first", "", ""),
    ]


def test_a_failure_is_told_without_a_word_of_the_apps() -> None:
    """The stage in which it failed is ours."""
    newest = outcomes(aborted(), 20.0)[0]
    assert (newest.outcome, newest.reason, newest.failure) == ("aborted", "import", "2.2 (pid 104) failed (import)")
    assert newest.ago == 8.0


def test_a_refused_reload_is_among_them() -> None:
    """Why it was refused may tell what is in a file: viewers are not shown that."""
    fleet = after(booting(), (11.5, AbortAsked("x")), (12.0, RefusalNoted("SIGHUP", "release", "no such directory")))
    newest, second, _ = outcomes(fleet, 15.0)
    assert newest == OutcomeView("refused", 3.0, None, None, "", "SIGHUP", "release", "", "no such directory")
    assert (second.outcome, second.reason) == ("aborted", "called-off")
    assert without_output(look(fleet, 15.0)).outcomes[0] == msgspec.structs.replace(newest, message="")


def test_there_are_some_of_them() -> None:
    """However many there have been."""
    fleet = booting()
    for number in range(20):
        fleet = after(fleet, (20.0 + number, ReloadAsked(NEW, f"{number}")))
        fleet = after(fleet, (20.0 + number, RefusalNoted(f"{number}", "release", "")))
    shown = outcomes(fleet, 99.0)
    assert len(shown) == MOST_REMEMBERED
    assert [one.ago for one in shown] == sorted(one.ago for one in shown)


def test_what_has_run_is_told_newest_first() -> None:
    """What is under way is not among it; one that crashes serves until it is replaced."""
    crashed_one = RevisionView(2, "srv/new", "serves", 7.0, 2, "asked by uid 0, pid 7", "crashed", None, False)
    first = RevisionView(1, "srv/old", "succeeded", 18.0, 1, "first", "", None, True)
    assert history(crashed(), 20.0) == [crashed_one, first]
    (failed, serving) = history(aborted(), 20.0)
    assert (failed.outcome, failed.reason, failed.ago, failed.can_return) == ("aborted", "import", 8.0, False)
    assert (serving.generation, serving.outcome, serving.can_return) == (1, "serves", False)


def test_deaths_are_told_newest_first_and_outlive_the_supervisor() -> None:
    """Whoever takes over shows the same, and refuses what was rolled back."""
    fleet = after(crashed(), (17.0, Exited(5, "killed by SIGKILL")), (18.0, RefusalNoted("SIGHUP", "release", "no")))
    assert deaths(fleet, 20.0)[-2:] == [
        DeathView("2.2", 104, "exited 7", 4.0),
        DeathView("2.1", 103, "exited 1", 5.0),
    ]
    read = decode(encode(Record(SCHEMA, "boot", "0123456789abcdef" * 4, 2, fleet))).fleet
    assert (deaths(read, 20.0), outcomes(read, 20.0)) == (deaths(fleet, 20.0), outcomes(fleet, 20.0))
    assert read.rolled_back == fleet.rolled_back != ()
