"""The laws of the programs that are run around a rollout, in a world in which half of all histories have them."""

from __future__ import annotations

from collections import Counter
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from stillup.core.commands import Command, LetHookRun, RunHook, Spawn
from stillup.core.events import Event, HookEnded, HookLeft, HookStarted
from stillup.core.hook_settings import HookKind, Hooks
from stillup.core.model import Fleet, Hook
from stillup.core.policy import Timer, TimerKind
from stillup.core.states import GenerationState, HookState
from stillup.core.values import replace
from tests.core.world import World

HOOKS: Final = Hooks(("python", "manage.py", "migrate"), ("tell",))
TIMEOUT: Final = 50.0


class HookLaws(World):
    """Hooks come to be processes, or not, end in any way, and hang."""

    def __init__(self) -> None:
        super().__init__()
        self.hook: int | None = None
        """The hook whose process was asked for, and has not ended; the laws' own account."""
        self.hooks_run: Counter[tuple[int, HookKind]] = Counter()
        """By rollout and kind."""

    def listen(self, before: Fleet, event: Event) -> None:
        super().listen(before, event)
        if isinstance(event, HookEnded) or (isinstance(event, HookLeft) and not event.lives):
            self.hook = None

    def note(self, command: Command) -> None:
        super().note(command)
        if isinstance(command, RunHook):
            self.hook = command.hook.id
            self.hooks_run[command.hook.rollout, command.hook.kind] += 1

    # What can happen

    @initialize(hooked=st.booleans())
    def configure(self, hooked: bool) -> None:
        """Half of all histories have hooks, from their beginning or from a moment later on."""
        if hooked:
            policy = replace(self.fleet.policy, hooks=HOOKS, hook_timeout=TIMEOUT)
            self.fleet = replace(self.fleet, policy=policy)

    @rule()
    def all_go_on(self) -> None:
        """Every hook does what it is to, and then workers come into service."""
        while self.fleet.hook_under_way is not None:
            self.hook_goes_on("exited 0")
        super().all_go_on()

    @precondition(lambda self: self.fleet.hook_under_way is not None)
    @rule(how=st.sampled_from(["", "exited 0", "exited 1"]))
    def hook_goes_on(self, how: str) -> None:
        """The hook that is under way comes to be a process; with ``how`` it ends like that."""
        hook = self.fleet.hook_under_way
        assert hook is not None
        if hook.pid is None:
            assert self.submit(HookStarted(hook.id, 5000 + hook.id, hook.id))
        if how:
            assert self.submit(HookEnded(hook.id, how, "tail")), "an end is never refused"

    @rule(number=st.integers(0, 9), data=st.data())
    def anything_is_said_of_a_hook(self, number: int, data: st.DataObject) -> None:
        """Of one that is none, too."""
        hook = self.fleet.last_hook + 1 - number
        events: list[Event] = [HookStarted(hook, 7, 7), HookLeft(lives=True)]
        if self.hook is None:
            events.append(HookEnded(hook, "exited 0"))
        self.submit(data.draw(st.sampled_from(events)))

    # Of each decision

    def judge(self, command: Command, before: Fleet, event: Event) -> None:
        super().judge(command, before, event)
        match command:
            case RunHook(hook):
                self.hooks_are_run_one_by_one(hook)
                self.a_hook_is_run_once(hook)
            case LetHookRun(number):
                self.its_process_is_known(number)
            case Spawn():
                self.it_is_prepared_first(command)

    def hooks_are_run_one_by_one(self, hook: Hook) -> None:
        """Law 34, one hook at a time: none is begun beside the process of another, be it one that is being ended."""
        assert self.hook is None, f"law 34: {hook.id} beside {self.hook}"

    def a_hook_is_run_once(self, hook: Hook) -> None:
        """Law 35, a hook is run once: a rollout has each of them once at most, and one that rolls back none."""
        assert not self.hooks_run[hook.rollout, hook.kind], "law 35"
        rollout = self.fleet.rollout(hook.rollout)
        assert rollout is None or rollout.rolls_back is None, "law 35"

    def it_is_prepared_first(self, command: Spawn) -> None:
        """Law 36, prepared first: no worker of a rollout is started before its hook has done what it was to."""
        rollout = next((r for r in self.fleet.rollouts if r.generation == command.generation), None)
        if not self.fleet.policy.hooks.before or rollout is None or rollout.rolls_back is not None:
            return
        if self.fleet.generations[command.generation].state is GenerationState.BOOTING:
            done = [h.rollout for h in self.fleet.hooks if h.kind is HookKind.BEFORE and h.state is HookState.DONE]
            assert rollout.id in done, "law 36"

    def its_process_is_known(self, number: int) -> None:
        """Law 37, known before it runs: which process a hook is, is in the fleet when that is let run."""
        hook = self.fleet.hook_under_way
        assert hook is not None, "law 37"
        assert (hook.id, hook.state) == (number, HookState.RUNNING), "law 37"
        assert hook.pid is not None, "law 37"

    # At any time, and in the end

    @invariant()
    def every_hook_has_a_timer(self) -> None:
        """Law 38, no hook without a timer: one is set for each that runs, or was told to end and was not killed."""
        coming = {timer for _, timer in self.timers}
        hook = self.fleet.hook_under_way
        if hook is not None and hook.state is not HookState.KILLED:
            kind = TimerKind.HOOK if hook.state is HookState.RUNNING else TimerKind.HOOK_TERM
            assert Timer(kind, hook.id) in coming, "law 38"

    def hooks_end(self) -> None:
        """Let what was told to end do so."""
        if self.fleet.hook_under_way is not None:
            self.hook_goes_on("killed by SIGTERM")
