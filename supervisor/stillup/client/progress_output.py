"""What commands print while they watch a rollout or a change of the number of workers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from stillup.client import full_database
from stillup.client.plain_output import Printer
from stillup.client.text_output import kept_text, print_verdict, rollout_name, step_text
from stillup.client.watch_output import figures, passed_line, watch_lines
from stillup.core.amounts import amount, sessions_among
from stillup.core.hook_settings import HookKind
from stillup.core.setting_changes import Effect, change_text
from stillup.core.states import CALLED_OFF, GATE, INCONCLUSIVE, RolloutState
from stillup.core.strategy import StrategyKind
from stillup.wire.api_shapes import FailureView, RolloutView, ScalingView, SettingChangeView
from stillup.wire.hook_views import HookView

EVERY: Final = 5
"""Seconds between two lines about a wait that may be long."""


class RolloutProgress:
    """A rollout that is watched: a line for each step that is done."""

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        """Show the rollout of service ``name``; ``quiet`` shows nothing."""
        self._name = name
        self._quiet = quiet
        self._shown: set[str] = set()
        self._since: dict[str, float] = {}
        self._out = Printer()

    def update(self, rollout: RolloutView, *, wait: str = "cut-over", over: bool = False) -> None:
        """Show what is new.

        Args:
            rollout: as it is now.
            wait: how far it is watched.
            over: nothing more will be asked, so show what the old generation still has.
        """
        if self._quiet:
            return
        if rollout.state == "waiting":
            self._once("waiting", f"{self._name}  waits until gen {one_of(rollout.waits_for)} has left")
            hurries = "; 'stillup reload --hurry' ends them" if rollout.drains else ""
            held = held_text(rollout.drains, rollout.drain_left)
            self._each(EVERY, "waiting", rollout.total, f"{held}{hurries}")
        if rollout.generation is not None:
            self._once("head", f"{self._name}  gen {move_text(rollout)}   {releases_text(rollout)}")
        for line in _changes(rollout.changes):
            self._once(line, line)
        for hook in rollout.hooks:
            if hook.hook == HookKind.BEFORE:
                self._hook(hook)
        if rollout.outcome == "aborted":
            self._aborted(rollout, is_watched=wait == "drained")
        elif rollout.outcome == "rolled-back":
            self._rolled_back(rollout)
        elif rollout.outcome == "succeeded":
            self._succeeded(rollout, wait=wait, over=over)
        elif rollout.state == RolloutState.WATCHING:
            self._canary(rollout)
        elif rollout.step is not None:
            self._passed(rollout)
            self._steps(rollout, "roll")
        elif rollout.booting_for is not None and rollout.booting_for >= 1:
            seconds = int(rollout.booting_for)
            probe = f", {rollout.probe}" if rollout.probe else ""
            queued = f", {rollout.workers_queued} queued" if rollout.workers_queued else ""
            ready = f"{rollout.workers_ready}/{rollout.workers_wanted} ready{probe}{queued}"
            self._once(f"booting {seconds}", f"  boot      {ready:<30}{seconds:>4} s ...")

    def _canary(self, rollout: RolloutView) -> None:
        """Say how a canary does, every few seconds; and what its watch waits for, when that changes."""
        lines = watch_lines(rollout)
        for line in lines[:1]:
            self._once(f"canary {int(self._seconds_since('canary')) // EVERY}", line)
        for line in lines[1:]:
            reason = rollout.watch.reason if rollout.watch is not None else ""
            self._once(f"hold {reason} {int(self._seconds_since('hold')) // EVERY}", line)

    def _passed(self, rollout: RolloutView) -> None:
        if line := passed_line(rollout):
            self._once("passed", line)

    def _steps(self, rollout: RolloutView, what: str) -> None:
        """Say each step, and every few seconds what the next one waits for."""
        at = step_text(rollout)
        self._once(f"{what} {at}", f"  {what:<9} {at:<30}{rollout.total:.1f} s")
        waits = (rollout.probe, held_text(rollout.drains, rollout.drain_left) if rollout.drains else "")
        self._each(EVERY, what, self._seconds_since(f"{what} {at}"), ", ".join([at, *filter(None, waits)]))

    def _succeeded(self, rollout: RolloutView, *, wait: str, over: bool) -> None:
        probe = f", {rollout.probe}" if rollout.probe else ""
        all_of = f"{rollout.workers_wanted}/{rollout.workers_wanted}"
        born = "".join(f", {birth}" for birth in rollout.births)
        self._passed(rollout)
        if rollout.strategy != StrategyKind.BLUE_GREEN and rollout.previous is not None:
            self._once(
                "cut", f"  roll      {f'{all_of} on gen {rollout.generation}{probe}':<30}{rollout.total:.1f} s{born}"
            )
        else:
            self._once("boot", f"  boot      {f'{all_of} ready{probe}':<30}{rollout.booting_for or 0:.1f} s{born}")
            self._once("cut", f"  cut over  {'':<30}{(rollout.cut_over_took or 0) * 1000:.0f} ms")
        for hook in rollout.hooks:
            if hook.hook == HookKind.AFTER:
                self._hook(hook, over=over)
        if not over:
            if wait == "probation" and rollout.probation_left is not None:
                what = f"{amount(rollout.deaths, 'death')}; {rollout.probation_left:.0f} s left"
                self._each(EVERY, "probation", self._seconds_since("probation"), what)
            elif wait == "drained" and rollout.previous is not None:
                what = f"gen {rollout.previous}: {held_text(rollout.drains, rollout.drain_left)}"
                self._each(EVERY, "draining", self._seconds_since("draining"), what)
            return
        if rollout.moved:
            pause = f"longest pause {rollout.longest_pause * 1000:.0f} ms"
            moved = f"{amount(rollout.moved, 'connection')}{sessions_among(rollout.moved_sessions)}"
            self._once("moved", f"  moved     {moved}, {pause}")
        if rollout.refused_sessions:
            refused = f"{amount(rollout.refused_sessions, 'session')} did not go on: stillup events says why"
            self._once("refused", f"  refused   {refused}")
        if wait == "probation" and has_failed_probation(rollout):
            self._failed_probation(rollout)
            return
        closed = f", {_closed(rollout)}" if rollout.previous is not None else ""
        print_verdict(self._out, "ok", f"gen {rollout.generation} serving{closed}", rollout.total)
        what = ", ".join(f"{n} {kind}" for kind, n in rollout.drains.items())
        if rollout.standby_left is not None:
            holds = f"; it still has {what}, at most {rollout.drain_left or 0:.0f} s" if what else ""
            back = f"for {rollout.standby_left:.0f} s 'stillup rollback' has it serve at once"
            self._once("standby", f"  gen {rollout.previous} stands by: {back}{holds}")
        elif rollout.state == "draining":
            drains = f"drains: {what}" if what else "drains"
            self._out.line((f"  gen {rollout.previous} {drains}; at most {rollout.drain_left or 0:.0f} s", "yellow"))
        elif rollout.previous is not None:
            self._once("left", f"  gen {rollout.previous} has left")

    def _hook(self, hook: HookView, *, over: bool = False) -> None:
        """Say how a hook ended, or every few seconds that it runs; ``over``: it is not watched to its end."""
        match hook.state:
            case "done":
                self._once(f"hook {hook.id}", _hook_line(hook, f"{hook.command} ... ok"))
            case "failed" if hook.hook == HookKind.AFTER:
                self._once(f"hook {hook.id}", _hook_line(hook, f"{hook.command} ... {hook.reason}"))
            case "failed":
                pass  # with what it wrote, as why the rollout was rejected
            case "waiting":
                self._once(f"hook {hook.id} waits", f"  hook      {hook.command} waits for the one before to end")
            case _ if over:
                self._once(f"hook {hook.id}", f"  hook      {hook.command} runs on: stillup status")
            case _ if hook.seconds >= 1:
                times = int(hook.seconds) // EVERY
                self._once(f"hook {hook.id} {times}", _hook_line(hook, f"{hook.command} ..."))

    def _aborted(self, rollout: RolloutView, *, is_watched: bool) -> None:
        """Say how it failed, as soon as that is known, and how it ended; ``is_watched``: until it has gone back."""
        if rollout.failure is not None and "failed" not in self._shown:
            self._shown.add("failed")
            self._failed(rollout, rollout.failure)
        back = step_text(rollout)
        if back and is_watched:
            self._steps(rollout, "back")
            return
        kept = f". {kept}." if (kept := kept_text(rollout)) else "."
        how = "called off" if rollout.reason == CALLED_OFF else f"rejected ({rollout.reason})"
        print_verdict(self._out, "no", f"{rollout_name(rollout)} {how}{kept}")
        if back:
            self._out.line((f"  gen {rollout.generation} goes back: {back}", "yellow"))

    def _rolled_back(self, rollout: RolloutView) -> None:
        if rollout.failure is not None:
            self._out.line(f"  {process_text(rollout.failure)} {rollout.failure.message}")
        print_verdict(
            self._out,
            "no",
            f"gen {rollout.generation} crashed ({amount(rollout.deaths, 'death')}): "
            f"rolled back to {rollout.previous_release}",
        )
        self._out.line(f"  {rollout.release} is refused until it is changed; 'stillup reload --force' insists")

    def _failed(self, rollout: RolloutView, failure: FailureView) -> None:
        if failure.stage == "hook":
            self._out.line(f"  hook      {failure.message}")
            _print_output(self._out, failure)
            return
        if failure.stage in (GATE, INCONCLUSIVE):
            what = failure.message or failure.stage  # a viewer is not told
            self._out.line(f"  canary    {what}{figures(rollout.watch) if rollout.watch is not None else ''}")
            return
        ready = f"{rollout.workers_ready}/{rollout.workers_wanted} ready"
        self._out.line(
            f"  boot      {ready}; {process_text(failure)} {failure.message} after {rollout.booting_for or 0:.1f} s"
        )
        _print_output(self._out, failure)
        if full_database.refusal(failure):
            self._out.line("  hint      its database has no room for more pools: 'stillup doctor' says what to do")

    def _failed_probation(self, rollout: RolloutView) -> None:
        if rollout.reason:
            what = f"crashed ({amount(rollout.deaths, 'death')}) and stays: nothing to go back to ({rollout.reason})"
        else:
            why = "the service is stopping" if rollout.stopped else "another took its place"
            what = f"does not serve any more: {why}"
        print_verdict(self._out, "no", f"gen {rollout.generation} {what}")

    def _seconds_since(self, what: str) -> float:
        """Since this was asked for the first time."""
        now = time.monotonic()
        return now - self._since.setdefault(what, now)

    def _each(self, every: int, what: str, seconds: float, line: str) -> None:
        """Print a line every so many seconds of something that takes long."""
        times = int(seconds) // every
        if times:
            self._once(f"{what} {times}", f"  {what:<9} {line:<32}{seconds:>4.0f} s ...")

    def _once(self, key: str, line: str) -> None:
        if key not in self._shown:
            self._shown.add(key)
            self._out.line(line)


class ScalingProgress:
    """A request for more or fewer workers that is watched."""

    def __init__(self, name: str, *, drained: bool = False, quiet: bool = False) -> None:
        """Show the request to service ``name``.

        Args:
            name: of the service.
            drained: whether it is watched until those beyond the number have left.
            quiet: whether nothing is shown.
        """
        self._name = name
        self._drained = drained
        self._quiet = quiet
        self._seconds = 0
        self._out = Printer()
        self._begun = False
        self._began: float | None = None

    def is_over(self, scaling: ScalingView) -> bool:
        """Whether it has come as far as it is watched."""
        leaves = self._drained and scaling.outcome == "succeeded" and scaling.workers_leaving > 0
        return scaling.outcome is not None and not leaves

    def update(self, scaling: ScalingView) -> None:
        """Show what is new."""
        if self._quiet:
            return
        if not self._begun:
            self._begun = True
            self._out.line(f"{self._name}  {scaling.workers_before} -> {amount(scaling.workers_wanted, 'worker')}")
        if scaling.outcome == "aborted":
            self._aborted(scaling)
        elif self.is_over(scaling):
            print_verdict(self._out, "ok", _serve(scaling), scaling.total)
            if scaling.workers_leaving:
                self._out.line((f"  {_leave(scaling)}", "yellow"))
        else:
            self._under_way(scaling)

    def _under_way(self, scaling: ScalingView) -> None:
        """Say what is waited for, once a second; of those that leave, every few seconds."""
        now = time.monotonic()
        self._began = self._began if self._began is not None else now
        seconds = int(now - self._began)
        every = EVERY if scaling.outcome == "succeeded" else 1
        if seconds // every > self._seconds // every:
            self._seconds = seconds
            boots = f", {scaling.workers_booting} boot" if scaling.workers_booting else ""
            what = _leave(scaling) if scaling.outcome == "succeeded" else f"{_serve(scaling)}{boots}"
            self._out.line(f"  {what:<40}{seconds:>4} s ...")

    def _aborted(self, scaling: ScalingView) -> None:
        failure = scaling.failure
        if failure is not None:
            self._out.line(f"  {process_text(failure)} {failure.message}")
            _print_output(self._out, failure)
        print_verdict(self._out, "no", f"{_serve(scaling)} ({scaling.reason})", scaling.total)
        if failure is not None:
            self._out.line(f"  its slot is tried again; 'stillup scale {scaling.workers_before}' gives it up")


def _hook_line(hook: HookView, what: str) -> str:
    ends = f"{hook.seconds:.1f} s" if hook.state in ("done", "failed") else f"{hook.seconds:>4.0f} s ..."
    return f"  hook      {what:<30}{ends}"


def _print_output(out: Printer, failure: FailureView) -> None:
    """Print the tail of what the worker wrote."""
    for line in failure.output.splitlines():
        out.line(f"  | {line.expandtabs()}")


def process_text(failure: FailureView) -> str:
    """Who failed."""
    return f"{failure.worker} (pid {failure.pid})" if failure.pid is not None else failure.worker


def _leave(scaling: ScalingView) -> str:
    return f"{scaling.workers_leaving} leaving: {held_text(scaling.drains, scaling.drain_left)}"


def held_text(drains: Mapping[str, int], left: float | None) -> str:
    """What is waited for, and for how long at most."""
    what = ", ".join(f"{count} {kind}" for kind, count in drains.items()) or "nothing held"
    return f"{what}; at most {left:.0f} s" if left is not None else what


def one_of(generations: Sequence[int]) -> str:
    """Their numbers, of which any will do."""
    return " or ".join(map(str, generations))


def has_failed_probation(rollout: RolloutView) -> bool:
    """Whether a rollout that has succeeded, and whose probation is over, has not come through it."""
    return bool(rollout.reason) or not rollout.serves


def _closed(rollout: RolloutView) -> str:
    """How many connections ended; not that none was closed where some were told to close."""
    told = f"{amount(rollout.told_to_close, 'connection')} told to close" if rollout.told_to_close else ""
    closed = f"{amount(rollout.closed, 'connection')} closed" if rollout.closed or not told else ""
    return ", ".join(part for part in (closed, told) if part)


def _changes(changes: Sequence[SettingChangeView]) -> Iterator[str]:
    """What has become of the keys that were changed in the configuration file, a line for each kind."""
    texts = {
        Effect.APPLIED: "{} applied",
        Effect.OVERRIDDEN: "{} overridden",
        Effect.NEEDS_REEXEC: "{} as before: 'stillup supervisor reexec' applies it",
        Effect.NEEDS_RESTART: "{} as before until the service is stopped and started",
        Effect.FILE_GONE: "{} is gone: what it said last stays in force",
    }
    for effect, text in texts.items():
        keys = [change_text(one.key, one.by, one.what) for one in changes if one.effect == effect]
        if keys:
            yield f"  config    {text.format(', '.join(keys))}"


def _serve(scaling: ScalingView) -> str:
    return f"{scaling.workers_serving} of {scaling.workers_wanted} serve"


def move_text(rollout: RolloutView) -> str:
    """From which generation to which one it leads."""
    return f"{rollout.previous} -> {rollout.generation}" if rollout.previous is not None else f"{rollout.generation}"


def releases_text(rollout: RolloutView) -> str:
    """From which release to which one, or which one if that is the same."""
    if rollout.previous_release in ("", rollout.release):
        return rollout.release
    return f"{rollout.previous_release} -> {rollout.release}"
