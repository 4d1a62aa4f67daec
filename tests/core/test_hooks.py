"""Programs that are run around a rollout, told as stories."""

from __future__ import annotations

import pytest

from stillup.core.commands import EndHook, Exit, LetHookRun, Reexec, RunHook, Spawn, Terminate
from stillup.core.events import (
    AbortAsked,
    HookEnded,
    HookStarted,
    ReexecAsked,
    RollbackAsked,
    ScaleAsked,
    StopAsked,
)
from stillup.core.failures import described, said_by_app
from stillup.core.hook_settings import HookKind, Hooks, shown
from stillup.core.model import Failure, Hook
from stillup.core.policy import Policy, Timer, TimerKind
from stillup.core.states import (
    HOW_UNKNOWN,
    SUPERSEDED,
    GenerationState,
    HookState,
    RolloutState,
    ServiceState,
)
from stillup.core.step import step
from stillup.core.values import replace
from stillup.errors import Refused
from tests.core.story import NEW, OLD, Story, serving, spawn

MIGRATE = ("python", "manage.py", "migrate", "--noinput")
BEFORE = Policy(hooks=Hooks(before=MIGRATE))
AFTER = Policy(hooks=Hooks(after=("notify", "--token", "secret")))
BOTH = Policy(hooks=Hooks(MIGRATE, ("notify",)))


def hook(story: Story) -> Hook:
    """The one that is under way."""
    found = story.fleet.hook_under_way
    assert found is not None
    return found


def run(story: Story, how: str = "exited 0", output: str = "") -> None:
    """Let the hook that is under way be started, and end; its pid is 500 and its number."""
    number = hook(story).id
    story.tell(HookStarted(number, 500 + number, number))
    story.tell(HookEnded(number, how, output))


def hooked(policy: Policy = BEFORE) -> Story:
    """Generation 1 serves, and was put into service without a hook."""
    story = serving(1)
    story.fleet = replace(story.fleet, policy=policy)
    return story


def test_a_rollout_boots_when_its_hook_is_done() -> None:
    """The hook comes first, is let run when its process is known, and the workers come when it has exited with 0."""
    story = hooked()
    story.reload()
    asked = Hook(1, HookKind.BEFORE, HookState.RUNNING, 2, 2, MIGRATE, begun=60.0)
    assert story.orders == [RunHook(asked, NEW)]
    assert story.timers[Timer(TimerKind.HOOK, 1)] == 660.0
    about = {"rollout": 2, "generation": 2, "hook": "before", "command": "manage.py migrate"}
    assert story.news == {"hook.begun": {**about, "seconds": 600.0}}
    rollout = story.rollout(2)
    assert (rollout.state, rollout.generation, rollout.previous, rollout.begun) == (RolloutState.PREPARING, 2, 1, None)
    assert story.generations() == {1: GenerationState.SERVING}
    story.tell(HookStarted(1, 501, 7))
    assert story.orders == [LetHookRun(1)]
    assert (hook(story).pid, hook(story).started) == (501, 7)
    story.now = 64.0
    story.tell(HookEnded(1, "exited 0", "fine"))
    assert story.orders == [spawn(2, 2, 1, NEW)]
    assert story.news["hook.done"] == {**about, "seconds": 4.0}
    assert story.news["rollout.begun"]["generation"] == 2
    assert (story.rollout(2).state, story.rollout(2).begun) == (RolloutState.BOOTING, 64.0)
    assert [(one.state, one.ended) for one in story.fleet.hooks] == [(HookState.DONE, 64.0)]
    story.come_to_serve()
    assert story.rollout(2).state is RolloutState.DRAINING


@pytest.mark.parametrize("how", ["exited 1", "killed by SIGSEGV", "could not be started: no memory", HOW_UNKNOWN])
def test_a_rollout_is_rejected_with_the_end_of_what_its_hook_wrote(how: str) -> None:
    """It never boots; what serves goes on, and nothing of what the hook wrote is in an event."""
    story = hooked()
    story.reload()
    run(story, how, "no such column")
    assert story.orders == []
    rollout = story.rollout(2)
    assert (rollout.state, rollout.reason) == (RolloutState.ABORTED, "hook")
    assert rollout.failure == Failure("hook", f"manage.py migrate {how}", pid=501, output="no such column")
    assert described(rollout.failure) == f"manage.py migrate {how}"
    assert said_by_app(rollout.failure) == ""
    assert story.news["hook.failed"] == {
        "rollout": 2,
        "generation": 2,
        "hook": "before",
        "command": "manage.py migrate",
        "seconds": 0.0,
        "reason": "failed",
        "why": f"manage.py migrate {how}",
    }
    assert story.news["rollout.aborted"]["reason"] == "hook"
    assert story.generations() == {1: GenerationState.SERVING}
    story.fleet = replace(story.fleet, policy=Policy())
    story.reload()
    assert story.orders == [spawn(2, 3, 1, NEW)], "a number is not given twice"


def test_a_first_start_whose_hook_fails() -> None:
    """The first start is a rollout, too: without it the service ends with 1, as when its app does not import."""
    story = Story(1, BEFORE)
    story.reload(OLD)
    assert (story.state(), story.orders) == (ServiceState.STARTING, [RunHook(hook(story), OLD)])
    run(story, "exited 1")
    assert story.orders[-1] == Exit(1)
    assert story.rollout(1).reason == "hook"


def test_under_hot_reload_the_next_save_tries_again() -> None:
    """A first generation whose hook fails leaves the supervisor waiting."""
    story = Story(1, replace(BEFORE, keep_trying=True))
    story.reload(OLD)
    run(story, "exited 1")
    assert (story.orders, story.state()) == ([], ServiceState.STARTING)
    story.reload(OLD)
    assert story.orders == [RunHook(hook(story), OLD)]


def test_a_hook_that_hangs_is_ended_then_killed() -> None:
    """By its deadline its group is told to end, and killed if it does not; the rollout is rejected at its end."""
    story = hooked()
    story.reload()
    story.tell(HookStarted(1, 501, 1))
    story.fire(TimerKind.HOOK, 1)
    assert (story.now, story.orders) == (660.0, [EndHook(1)])
    assert story.rollout(2).state is RolloutState.PREPARING
    story.fire(TimerKind.HOOK_TERM, 1)
    assert (story.now, story.orders) == (665.0, [EndHook(1, kill=True)])
    with pytest.raises(Refused, match="not to be killed"):
        story.fire(TimerKind.HOOK_TERM, 1)
    story.tell(HookEnded(1, "killed by SIGKILL", "waiting for a lock"))
    rollout = story.rollout(2)
    assert rollout.failure is not None
    assert rollout.failure.message == ("manage.py migrate had not ended after 600 s (--hook-timeout), and was ended")
    assert rollout.failure.output == "waiting for a lock"
    assert story.news["hook.failed"]["reason"] == "timeout"


def test_what_was_told_to_end_has_failed_whatever_its_exit_code() -> None:
    """A program that takes SIGTERM for a reason to exit with 0 has not done what it was to."""
    story = hooked()
    story.reload()
    story.tell(HookStarted(1, 501, 1))
    story.fire(TimerKind.HOOK, 1)
    story.tell(HookEnded(1, "exited 0"))
    assert story.rollout(2).state is RolloutState.ABORTED


def test_a_deadline_that_comes_late_is_refused() -> None:
    """That of a hook that has ended, and that of one which was told to end by then."""
    story = hooked()
    story.reload()
    story.tell(AbortAsked("test"))
    with pytest.raises(Refused, match="told to end already"):
        story.fire(TimerKind.HOOK, 1)
    story.tell(HookEnded(1, "killed by SIGTERM"))
    for kind in (TimerKind.HOOK, TimerKind.HOOK_TERM):
        with pytest.raises(Refused, match="no hook 1 is under way"):
            story.fire(kind, 1)


def test_a_second_reload_waits_for_the_first_ones_hook_to_have_gone() -> None:
    """The first is superseded, and its hook told to end; the second's begins when that has, not beside it."""
    story = hooked()
    story.reload()
    story.tell(HookStarted(1, 501, 1))
    story.reload()
    assert story.orders == [EndHook(1)]
    assert story.news["hook.waiting"] == {
        "rollout": 3,
        "generation": 3,
        "hook": "before",
        "command": "manage.py migrate",
        "until": "manage.py migrate",
    }
    assert [story.rollout(n).state for n in (2, 3)] == [RolloutState.ABORTED, RolloutState.PREPARING]
    story.reload()
    assert story.orders == []
    assert story.news["hook.failed"]["why"] == "manage.py migrate was not run"
    assert story.rollout(3).reason == SUPERSEDED
    story.tell(HookEnded(1, "killed by SIGTERM"))
    told = story.news["hook.failed"]
    assert (told["reason"], told["why"]) == (SUPERSEDED, "manage.py migrate was ended (superseded)")
    assert story.orders == [RunHook(hook(story), NEW)]
    assert (hook(story).rollout, hook(story).id) == (4, 3)
    run(story)
    assert story.rollout(4).state is RolloutState.BOOTING


def test_one_that_is_called_off_before_its_process_is_there() -> None:
    """It is told to end, and again once there is something to tell; it is never let run."""
    story = hooked()
    story.reload()
    story.tell(AbortAsked("test"))
    assert story.orders == [EndHook(1)]
    story.tell(HookStarted(1, 501, 1))
    assert story.orders == [EndHook(1)]
    with pytest.raises(Refused, match="started already"):
        story.tell(HookStarted(1, 502, 1))
    story.fire(TimerKind.HOOK_TERM, 1)
    story.tell(HookEnded(1, "killed by SIGKILL"))
    assert story.orders == []
    assert story.rollout(2).reason == "called-off"


def test_one_that_was_killed_before_its_process_is_there() -> None:
    """The same, where it was to be killed by then."""
    story = hooked()
    story.reload()
    story.tell(AbortAsked("test"))
    story.fire(TimerKind.HOOK_TERM, 1)
    story.tell(HookStarted(1, 501, 1))
    assert story.orders == [EndHook(1, kill=True)]


def test_what_has_no_hook() -> None:
    """A rollback, a respawn, a scaling."""
    story = serving(1)
    story.reload()
    story.come_to_serve()
    story.exit(1)
    story.fleet = replace(story.fleet, policy=BOTH)
    story.tell(ScaleAsked(2))
    story.come_to_serve()
    story.die(2, age=90.0)
    story.come_to_serve()
    story.tell(RollbackAsked(OLD, "", "test"))
    assert any(isinstance(order, Spawn) for order in story.orders)
    story.come_to_serve()
    assert story.rollout(3).state is RolloutState.DRAINING
    assert story.fleet.hooks == ()


def test_a_stop_ends_the_hook_and_waits_for_it() -> None:
    """The supervisor ends when nobody is left, the hook's processes neither; one that waited is not run."""
    story = hooked(BOTH)
    story.reload()
    story.tell(HookStarted(1, 501, 1))
    story.tell(StopAsked("test"))
    assert EndHook(1) in story.orders
    assert story.rollout(2).reason == "stopping"
    story.exit(1)
    assert story.state() is ServiceState.STOPPING
    story.tell(StopAsked("test", insist=True))
    assert EndHook(1, kill=True) in story.orders
    story.tell(StopAsked("test", insist=True))
    assert story.orders == []
    story.tell(HookEnded(1, "killed by SIGKILL"))
    assert story.orders == [Exit(0)]
    assert story.fleet.hook_under_way is None


def test_a_program_is_not_replaced_while_a_hook_runs() -> None:
    """The next one would not hear what it writes; a refusal names it."""
    story = hooked(AFTER)
    story.reload()
    story.come_to_serve()
    story.exit(1)
    with pytest.raises(Refused, match="the hook notify runs"):
        story.tell(ReexecAsked())
    run(story)
    story.tell(ReexecAsked())
    assert story.orders == [Reexec()]


def test_word_of_a_hook_that_is_none() -> None:
    """It is refused."""
    story = serving(1)
    for event in (HookStarted(1, 501, 1), HookEnded(1, "exited 0")):
        with pytest.raises(Refused, match="no hook 1 is under way"):
            step(story.fleet, event, 0.0)


def test_workers_are_told_to_leave_by_no_hook() -> None:
    """While one runs, and when it fails, the old generation hears nothing."""
    story = hooked()
    story.reload()
    assert not any(isinstance(order, Terminate) for order in story.orders)
    run(story, "exited 1")
    assert not any(isinstance(order, Terminate) for order in story.orders)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (MIGRATE, "manage.py migrate"),
        (("python",), "python"),
        (("python", "-m", "alembic", "upgrade", "head"), "alembic upgrade head"),
        (("python", "-m"), "python"),
        (("python", "-c", "print('secret')"), "python"),
        (("/usr/bin/env", "python", "x.py"), "env python x.py"),
        (("curl", "-H", "Authorization: Bearer x"), "curl"),
        (("curl", "https://example.com/secret"), "curl"),
        (("./bin/deploy", "a", "b", "c", "d"), "deploy a b c"),
        (("tell", "x" * 33), "tell"),
    ],
)
def test_how_people_call_a_hook(words: tuple[str, ...], name: str) -> None:
    """By its program and the plain words behind it; an option and what follows may be secret."""
    assert shown(words) == name
