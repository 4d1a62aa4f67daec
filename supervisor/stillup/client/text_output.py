"""What commands print for people: plain text, with colour on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from stillup.client.outcome_output import status_lines, summary
from stillup.client.plain_output import Printer
from stillup.client.watch_output import watch_lines
from stillup.core.amounts import amount, sessions_among
from stillup.core.listeners import ListenerState
from stillup.core.states import RolloutState
from stillup.wire.api_shapes import (
    Cordoned,
    DeathView,
    OutcomeView,
    RolloutView,
    Status,
    VacancyView,
    Whoami,
    WorkerView,
)
from stillup.wire.hook_views import HookView

if TYPE_CHECKING:
    from stillup.client.orphans import Orphan

STYLES: Final = {
    "serving": "green",
    "ok": "green",
    "no": "red",
    "draining": "yellow",
    "booting": "cyan",
    "shifting": "cyan",
    "watching": "cyan",
    "orphaned": "red",
    "stop-delay": "yellow",
    "stopping": "yellow",
}
"""Colours of states and verdicts."""


class ServiceLine(msgspec.Struct, frozen=True):
    """A line of ``stillup ls``."""

    name: str
    state: str
    """The service's, or ``orphaned``: its supervisor has died, and its workers serve on."""
    directory: str
    pid: int | None
    """The supervisor's."""
    workers: int
    addresses: list[str]
    outcome: OutcomeView | None = None
    """How its last rollout ended."""
    death: DeathView | None = None
    """Its last worker that died."""


def services(found: Sequence[ServiceLine]) -> None:
    """All of them, a line each."""
    out = Printer()
    for one in found:
        pid = f"pid {one.pid}" if one.pid is not None else "no supervisor"
        state = (f"{one.state:<9}", STYLES.get(one.state, ""))
        rest = f"  {pid:<14} {amount(one.workers, 'worker')}  {', '.join(one.addresses) or one.directory}"
        last = summary([one.outcome] if one.outcome else [], [one.death] if one.death else [])
        out.line(f"{one.name:<16}  ", state, rest, f"  {last}" if last else "")
    if any(one.state == "orphaned" for one in found):
        out.line("orphaned: 'stillup run' as before takes the workers over, 'stillup stop' ends them")


def leaving(orphans: Sequence[Orphan]) -> None:
    """Who is still waited for."""
    names = ", ".join(f"{orphan.name} (pid {orphan.process.pid})" for orphan in orphans)
    Printer().line(f"  waiting for {names}")


_LISTENERS: Final[dict[str, str]] = {
    ListenerState.ADDED: "  (new: who connects is served from the cut-over on)",
    ListenerState.REMOVED: "  (left out: closed when no generation could come back to it)",
}
"""What is said of a listener in such a state."""


def status(seen: Status) -> None:
    """The service at a glance."""
    out = Printer()
    out.line(f"{seen.name}  ", (seen.state, STYLES.get(seen.state, "")), f"   pid {seen.pid}")
    if seen.cordoned_for is not None:
        out.line((f"  cordoned  for {seen.cordoned_for:.0f} s: no new clients are to be sent", "yellow"))
    for listener in seen.listeners:
        named = "" if listener.name == listener.address else f"{listener.name}  "
        out.line(f"  listens   {named}{listener.address}{_LISTENERS.get(listener.state, '')}")
        if listener.trouble:
            out.line((f"            {listener.trouble}: nobody can connect; 'stillup reload' puts it back", "red"))
    for generation in seen.generations:
        since = f" for {generation.draining_for:.0f} s" if generation.draining_for is not None else ""
        if generation.standby_left is not None:
            since = f" for {generation.standby_left:.0f} s more: 'stillup rollback' has it serve at once"
        state = (generation.state + since, STYLES.get(generation.state, ""))
        births = ", ".join(sorted({worker.birth for worker in generation.workers if worker.birth is not None}))
        out.line(f"  gen {generation.id:<4}  ", state, f"   {generation.release}{f'   {births}' if births else ''}")
        for worker in generation.workers:
            has = f"{amount(worker.connections, 'connection')}{_classes(worker)}, {amount(worker.requests, 'request')}"
            leads = ", leads" if worker.leader else ""
            out.line(f"    {worker.id:<7} {worker.state:<9} pid {worker.pid or '-':<8} {has}{leads}{ails_text(worker)}")
        for vacancy in generation.waiting:
            out.line((f"    {vacancy.id:<7} waits     {waits_text(vacancy)}", "yellow"))
    if seen.hook is not None:
        out.line((f"  hook      {hook_text(seen.hook)}", "cyan"))
    crossing = seen.crossing
    told = f"{crossing.told_to_close} told to close, " if crossing.told_to_close else ""
    sessions = sessions_among(crossing.sessions_adopted)
    sessions += f", {crossing.sessions_refused} did not go on" if crossing.sessions_refused else ""
    out.line(
        f"  crossing  {crossing.given} given, {crossing.adopted} adopted{sessions}, {crossing.waiting} waiting "
        f"(room for {crossing.capacity}), {crossing.lost} lost, {crossing.closed} closed, "
        f"{told}longest pause "
        f"{crossing.longest * 1000:.0f} ms"
    )
    if crossing.unmoved:
        why = " and ".join(crossing.unmoved)
        out.line(f"            with {why} connections stay where they are: a reload closes those that are idle")
    if seen.rollout is not None and (seen.rollout.outcome is None or seen.rollout.step is not None):
        at = step_text(seen.rollout)
        doing = f"{seen.rollout.state}{f': {at}' if at else ''}"
        print_verdict(out, "..", f"{rollout_name(seen.rollout)} {doing}", seen.rollout.total)
        for canary in watch_lines(seen.rollout):
            out.line(canary)
    for line in status_lines(seen.outcomes, seen.deaths):
        out.line(line)


def cordoned(answer: Cordoned, name: str, units: Sequence[str] = ()) -> None:
    """What a cordon of the service of that name, or its end, has come to; ``units``: that hold its listeners, too."""
    out = Printer()
    if answer.cordoned:
        what = "is cordoned: /readyz fails, requests are served"
    else:
        what = "is not cordoned any more" if answer.changed else "is not cordoned"
    print_verdict(out, "ok", f"{name} {what}{'' if answer.changed else '; nothing changed'}")
    holders = units or [f"the .socket unit of '{listener}'" for listener in answer.sockets]
    if answer.cordoned and answer.sockets:
        out.line(f"    {', '.join(holders)} listens on after a stop, and starts it again: stop both")


def whoami(me: Whoami, name: str) -> None:
    """Who asks the service of that name, by the kernel's word."""
    out = Printer()
    groups = ", ".join(str(group) for group in me.groups) or "none"
    login = f", logged in as uid {me.login_uid}" if me.login_uid is not None else ""
    out.line(f"{name}  uid {me.uid}, gid {me.gid}, groups {groups}, pid {me.pid}{login}")
    out.line("role  ", (me.role, "bold"))
    out.line(f"may   {', '.join(me.may)}")
    if me.unseen:
        out.line((f"no more than that, since it cannot be seen whether you are a worker: {me.unseen}", "yellow"))


def aborted(rollout: RolloutView, name: str) -> None:
    """A rollout of the service of that name that was called off."""
    kept = f"; {kept}" if (kept := kept_text(rollout)) else ""
    out = Printer()
    print_verdict(out, "ok", f"{name}: {rollout_name(rollout)} is called off{kept}", rollout.total)
    if back := step_text(rollout):
        out.line((f"  gen {rollout.generation} goes back: {back}", "yellow"))


def print_verdict(out: Printer, verdict: str, text: str, seconds: float | None = None) -> None:
    """Print a verdict, what it is about, and how long that took."""
    took = f"{seconds:.1f} s" if seconds is not None else ""
    out.line((verdict, STYLES.get(verdict, "")), f"  {text:<37} {took}".rstrip())


def kept_text(rollout: RolloutView) -> str:
    """That what served before an aborted rollout never stopped; empty if nothing did, or some of it has left."""
    has_left = rollout.step is not None and rollout.step.old < rollout.step.of
    return "" if rollout.previous is None or has_left else f"gen {rollout.previous} never stopped serving"


def step_text(rollout: RolloutView) -> str:
    """How far a rollout has come that goes step by step, as ``1/4 on gen 2, 3 on gen 1``; empty if it does not.

    The generation that is to stay comes first.
    """
    if rollout.step is None:
        return ""
    stays, leaves = (rollout.generation, rollout.step.new), (rollout.previous, rollout.step.old)
    if rollout.state == RolloutState.GOING_BACK:
        stays, leaves = leaves, stays
    return f"{stays[1]}/{rollout.step.of} on gen {stays[0]}, {leaves[1]} on gen {leaves[0]}"


def rollout_name(rollout: RolloutView) -> str:
    """The name of a rollout in the output: its generation, once it has one."""
    return f"gen {rollout.generation}" if rollout.generation is not None else f"reload {rollout.id}"


def hook_text(hook: HookView) -> str:
    """What is run around a rollout, and for how long it may be."""
    at_most = f"; at most {hook.left:.0f} s" if hook.left is not None else f", {hook.state}"
    return (
        f"{hook.command}, {hook.hook} gen {hook.generation}: pid {hook.pid or '-'}, for {hook.seconds:.0f} s{at_most}"
    )


def ails_text(worker: WorkerView) -> str:
    """Why a worker is being replaced, or what its probe was answered."""
    if worker.hung_for is not None:
        return f", hangs for {worker.hung_for:.0f} s"
    return f", {worker.probe}" if worker.probe else (f", worn: {worker.worn}" if worker.worn else "")


def waits_text(vacancy: VacancyView) -> str:
    """Why a slot has no worker, and until when."""
    what = f"wore out young ({vacancy.worn})" if vacancy.worn else "died young"
    return f"{what} {amount(vacancy.deaths, 'time')} in a row, next start in {vacancy.seconds:.0f} s"


def _classes(worker: WorkerView) -> str:
    """What the connections do; of a draining worker also for how long the oldest of each class has."""
    ages = {kind: f" for {age:.0f} s" for kind, age in worker.oldest.items()}
    classes = (f"{count} {kind}{ages.get(kind, '')}" for kind, count in sorted(worker.classes.items()))
    return f" ({', '.join(classes)})" if worker.classes else ""
