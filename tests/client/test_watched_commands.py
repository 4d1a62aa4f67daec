"""What commands that watch print, and how they exit: played by a supervisor that says what it was told to."""

from __future__ import annotations

import re
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from stillup.client import progress_output, rollout_commands
from stillup.client.rollout_commands import abort, reload, rollback
from stillup.client.service_commands import scale
from stillup.core.setting_changes import Effect
from stillup.wire.api_shapes import FailureView, RolloutView, ScalingView, SettingChangeView, StepView
from stillup.wire.hook_views import HookView
from tests.client.scripted_supervisor import answer, supervisor
from tests.wire.example_fleets import BOOTING, SCALING, booting, look

SERVES = msgspec.structs.replace(
    BOOTING,
    state="draining",
    outcome="succeeded",
    workers_ready=2,
    serves=True,
    probation_left=20.0,
    drains={"stream": 1},
)
DONE = msgspec.structs.replace(SERVES, state="done", drains={})
PASSED = msgspec.structs.replace(DONE, probation_left=None)
CRASHED = msgspec.structs.replace(
    PASSED,
    state="rolled-back",
    outcome="rolled-back",
    reason="crashed",
    deaths=2,
    serves=False,
    failure=FailureView("exit", "exited 9", "2.1", 104, ""),
)
STEP = msgspec.structs.replace(
    BOOTING, state="shifting", strategy="rolling", workers_wanted=3, step=StepView(old=2, new=1, of=3)
)
BACK = msgspec.structs.replace(
    STEP,
    state="going-back",
    outcome="aborted",
    reason="import",
    failure=FailureView("import", "no module named app", "2.2", 104, "Traceback"),
)
WENT_BACK = msgspec.structs.replace(BACK, state="aborted", step=None)
LEAVING = msgspec.structs.replace(
    SCALING, state="done", outcome="succeeded", workers_leaving=1, drains={"websocket": 3}, drain_left=12.0
)


def watched(
    command: click.Command,
    directory: Path,
    first: RolloutView | ScalingView,
    *later: RolloutView | ScalingView,
    words: str,
) -> tuple[int, str, str]:
    """The exit code, all that was printed, and what was asked first."""
    views = (first, look(booting(), 12.0), *later)
    directory.mkdir(exist_ok=True)
    with supervisor(directory, *(answer(msgspec.json.encode(view)) for view in views)) as heard:
        done = CliRunner().invoke(command, [*words.split(), "--runtime-dir", str(directory)])
    return done.exit_code, done.output, heard.asked[0].partition(" HTTP")[0]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing crosses that would be waited for, and a long wait is told at once."""
    monkeypatch.setattr(rollout_commands, "CROSSING", 0.0)
    monkeypatch.setattr(rollout_commands, "POLL", 0.01)
    monkeypatch.setattr(progress_output, "EVERY", 1)


def test_a_probation_is_watched_to_its_end(tmp_path: Path) -> None:
    """Not only until the cut-over, and not until the old generation has left: the end of it is the verdict."""
    forked = msgspec.structs.replace(SERVES, births=["forked"])
    code, printed, asked = watched(reload, tmp_path, BOOTING, forked, DONE, PASSED, words="--wait probation")
    assert (code, asked) == (0, "POST /v1/reload")
    assert re.search(r"^  boot      2/2 ready .* s, forked$", printed, re.MULTILINE)
    assert "ok  gen 2 serving" in printed
    assert "gen 1 has left" in printed


def test_a_rollback_in_the_probation_is_a_failure(tmp_path: Path) -> None:
    """Who waits for the probation is told how the last worker died, and that the release is refused from now on."""
    code, printed, _ = watched(reload, tmp_path, BOOTING, SERVES, CRASHED, words="--wait probation")
    assert code == 1
    assert "  2.1 (pid 104) exited 9\n" in printed
    assert "no  gen 2 crashed (2 deaths): rolled back to srv/old" in printed
    assert "srv/new is refused until it is changed; 'stillup reload --force' insists" in printed
    assert "ok  " not in printed


@pytest.mark.parametrize("command", [reload, rollback])
def test_what_crashes_and_stays_is_a_failure(tmp_path: Path, command: click.Command) -> None:
    """There was nothing to go back to: it serves, and has not come through its probation."""
    stays = msgspec.structs.replace(DONE, probation_left=None, reason="release-overwritten", deaths=2)
    code, printed, _ = watched(command, tmp_path, BOOTING, SERVES, stays, words="--wait probation")
    assert code == 1
    assert "no  gen 2 crashed (2 deaths) and stays: nothing to go back to (release-overwritten)" in printed


def test_idle_connections_are_not_said_to_stay(tmp_path: Path) -> None:
    """What an old worker has reported before they moved is not what it drains; its next word is waited for."""
    stale = msgspec.structs.replace(SERVES, drains={"idle": 300, "stream": 1})
    code, printed, _ = watched(reload, tmp_path, BOOTING, stale, stale, SERVES, words="")
    assert code == 0
    assert "gen 1 drains: 1 stream;" in printed
    assert "idle" not in printed


def test_who_is_queued_is_shown(tmp_path: Path) -> None:
    """A boot that takes its turns says how many wait for theirs."""
    queued = msgspec.structs.replace(BOOTING, workers_wanted=4, workers_queued=2)
    _, printed, _ = watched(reload, tmp_path, queued, PASSED, words="")
    assert "  boot      1/4 ready, 2 queued " in printed


def test_another_generation_in_the_probation_supersedes(tmp_path: Path) -> None:
    """Nobody can say any more whether this one would have come through."""
    replaced = msgspec.structs.replace(DONE, probation_left=None, serves=False)
    code, printed, _ = watched(reload, tmp_path, BOOTING, SERVES, replaced, words="--wait probation")
    assert code == 5
    assert "no  gen 2 does not serve any more: another took its place" in printed


def test_a_stop_in_the_probation_is_no_later_deploy(tmp_path: Path) -> None:
    """A pipeline reads exit 5 as a newer release that serves; nothing does."""
    stopped = msgspec.structs.replace(DONE, probation_left=None, serves=False, stopped=True)
    code, printed, _ = watched(reload, tmp_path, BOOTING, SERVES, stopped, words="--wait probation")
    assert code == 1
    assert "no  gen 2 does not serve any more: the service is stopping" in printed


@pytest.mark.parametrize("words", ["", "--json"])
def test_a_watch_that_is_over_says_what_goes_on(tmp_path: Path, words: str) -> None:
    """Exit 6, with where to look; nothing is said of an outcome that nobody knows."""
    code, printed, _ = watched(reload, tmp_path, BOOTING, words=f"--timeout 0 {words}")
    assert code == 6
    assert "not watching any more after 0 s; the reload goes on: stillup status (rollout 2)" in printed
    assert ('"outcome": null' in printed) == bool(words)


def test_force_is_asked_for(tmp_path: Path) -> None:
    """In the request, beside which nothing is asked."""
    code, _, asked = watched(reload, tmp_path, BOOTING, PASSED, words="--force")
    assert (code, asked) == (0, "POST /v1/reload?force=true")


def test_a_wait_for_older_generations_says_whose(tmp_path: Path) -> None:
    """Which of them, what they hold, and for how long at most."""
    waiting = msgspec.structs.replace(
        BOOTING,
        state="waiting",
        generation=None,
        booting_for=None,
        waits_for=[3, 4],
        drains={"stream": 2},
        drain_left=9.0,
        total=7.0,
    )
    _, printed, _ = watched(reload, tmp_path, waiting, PASSED, words="")
    assert "shop  waits until gen 3 or 4 has left\n" in printed
    assert "  waiting   2 stream; at most 9 s; 'stillup reload --hurry' ends them" in printed


def test_a_scaling_is_watched_until_those_beyond_have_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile it says what they hold, and for how long at most."""
    monkeypatch.setattr("stillup.client.service_commands.POLL", 0.6)
    left = msgspec.structs.replace(LEAVING, workers_leaving=0, drains={}, drain_left=None)
    code, printed, _ = watched(scale, tmp_path, LEAVING, LEAVING, LEAVING, left, words="3 --wait drained")
    assert code == 0
    assert "  1 leaving: 3 websocket; at most 12 s" in printed
    assert "ok  2 of 3 serve" in printed


def test_a_scaling_says_what_leaves(tmp_path: Path) -> None:
    """By default it returns when so many serve, and names what goes on."""
    code, printed, _ = watched(scale, tmp_path, LEAVING, words="3")
    assert (code, printed.splitlines()[-1]) == (0, "  1 leaving: 3 websocket; at most 12 s")


def test_a_scaling_that_is_not_watched(tmp_path: Path) -> None:
    """With --wait none at once; with --timeout when that is over."""
    code, printed, _ = watched(scale, tmp_path / "1", SCALING, words="3 --wait none")
    assert (code, printed) == (0, "shop  3 workers stay wanted: stillup status\n")
    code, printed, _ = watched(scale, tmp_path / "2", SCALING, words="3 --timeout 0")
    assert code == 6
    assert "not watching any more after 0 s; 3 workers stay wanted" in printed


def test_what_was_changed_in_the_configuration_is_listed(tmp_path: Path) -> None:
    """A line for each thing that a key can have come to."""
    changes = [
        SettingChangeView("workers", Effect.APPLIED),
        SettingChangeView("app", Effect.APPLIED),
        SettingChangeView("probation", Effect.OVERRIDDEN, "--probation"),
        SettingChangeView("bind", Effect.NEEDS_REEXEC),
        SettingChangeView("name", Effect.NEEDS_RESTART),
        SettingChangeView("/srv/stillup.toml", Effect.FILE_GONE),
    ]
    _, printed, _ = watched(reload, tmp_path, msgspec.structs.replace(BOOTING, changes=changes), PASSED, words="")
    assert printed.splitlines()[1:6] == [
        "  config    workers, app applied",
        "  config    probation (--probation) overridden",
        "  config    bind as before: 'stillup supervisor reexec' applies it",
        "  config    name as before until the service is stopped and started",
        "  config    /srv/stillup.toml is gone: what it said last stays in force",
    ]


@pytest.mark.parametrize(
    ("closed", "told", "says"),
    [(0, 0, "0 connections closed"), (0, 84, "84 connections told to close"), (3, 0, "3 connections closed")],
)
def test_who_was_told_to_close_is_not_called_none_closed(tmp_path: Path, closed: int, told: int, says: str) -> None:
    """What could not move was answered with Connection: close: its client has to come again."""
    passed = msgspec.structs.replace(PASSED, closed=closed, told_to_close=told)
    _, printed, _ = watched(reload, tmp_path, BOOTING, passed, words="")
    assert f"ok  gen 2 serving, {says} " in printed


def test_sessions_that_moved(tmp_path: Path) -> None:
    """How many of the connections were WebSockets, and those that did not go on."""
    passed = msgspec.structs.replace(PASSED, moved=353, moved_sessions=41, refused_sessions=1, longest_pause=0.008)
    _, printed, _ = watched(reload, tmp_path, BOOTING, passed, words="")
    assert "  moved     353 connections (41 sessions), longest pause 8 ms\n" in printed
    assert "  refused   1 session did not go on: stillup events says why\n" in printed


MIGRATES = HookView(1, "before", "manage.py migrate", "running", 2, 2, 501, 6.2, 593.8)
PREPARING = msgspec.structs.replace(BOOTING, state="preparing", booting_for=None, hooks=[MIGRATES])


def test_a_hook_is_said_while_it_runs_and_when_it_is_done(tmp_path: Path) -> None:
    """With how long it took; one after the cut-over is not waited for."""
    done = msgspec.structs.replace(MIGRATES, state="done", seconds=14.25)
    tells = HookView(2, "after", "tell", "running", 2, 2, 502, 0.2, 599.8)
    serves = msgspec.structs.replace(DONE, hooks=[done, tells])
    code, out, _ = watched(reload, tmp_path, PREPARING, serves, words="")
    assert code == 0
    lines = [line for line in out.splitlines() if line.startswith("  hook")]
    assert lines == [
        "  hook      manage.py migrate ...            6 s ...",
        "  hook      manage.py migrate ... ok      14.2 s",
        "  hook      tell runs on: stillup status",
    ]


def test_a_hook_after_the_cut_over_that_failed(tmp_path: Path) -> None:
    """It is said why, and the reload has succeeded."""
    failed = HookView(2, "after", "tell", "failed", 2, 2, 502, 0.2, reason="failed")
    code, out, _ = watched(reload, tmp_path, msgspec.structs.replace(DONE, hooks=[failed]), words="")
    assert (code, "  hook      tell ... failed               0.2 s\n" in out) == (0, True), out


def test_a_hook_that_waits_for_another(tmp_path: Path) -> None:
    """It is said, once; and of one that failed what it wrote."""
    waits = msgspec.structs.replace(PREPARING, hooks=[msgspec.structs.replace(MIGRATES, state="waiting")])
    failed = msgspec.structs.replace(
        PREPARING,
        state="aborted",
        outcome="aborted",
        reason="hook",
        previous=1,
        hooks=[msgspec.structs.replace(MIGRATES, state="failed", reason="failed")],
        failure=FailureView("hook", "manage.py migrate exited 1", "", 501, "no such column"),
    )
    code, out, _ = watched(reload, tmp_path, waits, waits, failed, words="")
    assert code == 1
    assert out.splitlines()[-4:] == [
        "  hook      manage.py migrate waits for the one before to end",
        "  hook      manage.py migrate exited 1",
        "  | no such column",
        "no  gen 2 rejected (hook). gen 1 never stopped serving.",
    ]


@pytest.mark.parametrize(("wrote", "hinted"), [("FATAL:  sorry, too many clients already", True), ("no app", False)])
def test_a_database_that_is_full_has_a_hint(tmp_path: Path, wrote: str, hinted: bool) -> None:
    """What to do about a pool that cannot double is for `doctor` to say, which knows how many workers there are."""
    failure = FailureView("lifespan", "the app's startup failed", "2.1", 104, wrote)
    rejected = msgspec.structs.replace(
        BOOTING, state="aborted", outcome="aborted", reason="lifespan", previous=1, failure=failure
    )
    code, out, _ = watched(reload, tmp_path, rejected, words="")
    assert (code, "'stillup doctor' says what to do" in out) == (1, hinted)


def test_each_step_of_a_rolling_reload_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, in the order of the steps; one that takes long says what is waited for."""
    monkeypatch.setattr(rollout_commands, "POLL", 0.6)
    drains = msgspec.structs.replace(
        STEP, step=StepView(old=1, new=1, of=3), drains={"stream": 1}, drain_left=29.0, probe="/healthz 503"
    )
    passed = msgspec.structs.replace(PASSED, strategy="rolling", workers_wanted=3, total=4.0)
    _, printed, _ = watched(reload, tmp_path, BOOTING, STEP, drains, drains, drains, passed, words="")
    assert printed.splitlines()[2:] == [
        "  roll      1/3 on gen 2, 2 on gen 1      1.5 s",
        "  roll      1/3 on gen 2, 1 on gen 1      1.5 s",
        "  roll      1/3 on gen 2, 1 on gen 1, /healthz 503, 1 stream; at most 29 s   1 s ...",
        "  roll      3/3 on gen 2                  4.0 s",
        "ok  gen 2 serving, 0 connections closed   4.0 s",
        "  gen 1 has left",
    ]


def test_what_goes_back_is_rejected_at_once(tmp_path: Path) -> None:
    """The caller has the reason; what still serves of the new one is said."""
    code, printed, _ = watched(reload, tmp_path, STEP, BACK, words="")
    assert code == 1
    assert printed.splitlines()[-4:] == [
        "  boot      1/3 ready; 2.2 (pid 104) no module named app after 1.5 s",
        "  | Traceback",
        "no  gen 2 rejected (import).",
        "  gen 2 goes back: 2/3 on gen 1, 1 on gen 2",
    ]


def test_the_way_back_is_watched_by_who_waits_for_the_drain(tmp_path: Path) -> None:
    """Step by step; why it goes back is said when it begins, and once."""
    code, printed, _ = watched(reload, tmp_path, STEP, BACK, BACK, WENT_BACK, words="--wait drained")
    assert code == 1
    assert printed.splitlines()[1:] == [
        "  roll      1/3 on gen 2, 2 on gen 1      1.5 s",
        "  boot      1/3 ready; 2.2 (pid 104) no module named app after 1.5 s",
        "  | Traceback",
        "  back      2/3 on gen 1, 1 on gen 2      1.5 s",
        "no  gen 2 rejected (import). gen 1 never stopped serving.",
    ]


def test_a_strategy_is_asked_for(tmp_path: Path) -> None:
    """Those of its words that were given; a number that is none is not."""
    words = "--strategy rolling --max-surge 0 --max-unavailable 1"
    _, _, asked = watched(reload, tmp_path / "1", BOOTING, PASSED, words=words)
    assert asked == "POST /v1/reload?strategy=rolling&max_surge=0&max_unavailable=1"
    _, _, asked = watched(reload, tmp_path / "2", BOOTING, PASSED, words="--max-surge 2")
    assert asked == "POST /v1/reload?max_surge=2"
    assert CliRunner().invoke(reload, ["--max-surge", "-1"]).exit_code == 2


def test_an_abort_in_the_middle_says_what_goes_back(tmp_path: Path) -> None:
    """What of the new one serves leaves step by step; before that there is nothing to say."""
    off = msgspec.structs.replace(BACK, reason="called-off", failure=None)
    for view, lines in ((off, ["  gen 2 goes back: 2/3 on gen 1, 1 on gen 2"]), (WENT_BACK, [])):
        folder = tmp_path / view.state
        folder.mkdir()
        with supervisor(folder, *(answer(msgspec.json.encode(one)) for one in (view, look(booting(), 12.0)))):
            done = CliRunner().invoke(abort, ["--runtime-dir", str(folder)])
        assert (done.exit_code, done.output.splitlines()[1:]) == (0, lines)
        assert ("never stopped serving" in done.output) is (view is WENT_BACK)
