"""How answers look: plain text, with colour on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.text import Text

from supervisor.client.orphans import Orphan
from supervisor.core.rollout import CALLED_OFF
from supervisor.wire.control import FailureView, RolloutView, ScalingView, Status, VacancyView, Whoami, WorkerView

_STYLES = {
    "serving": "green",
    "ok": "green",
    "no": "red",
    "draining": "yellow",
    "booting": "cyan",
    "orphaned": "red",
    "stopping": "yellow",
}


class Service(msgspec.Struct, frozen=True):
    """A line of ``stillup ls``."""

    name: str
    state: str
    """The service's, or ``orphaned``: its supervisor has died, and its workers serve on."""
    directory: str
    pid: int | None
    """The supervisor's."""
    workers: int
    addresses: list[str]


def services(found: Sequence[Service]) -> None:
    """All of them, a line each."""
    console = _console()
    for one in found:
        pid = f"pid {one.pid}" if one.pid is not None else "no supervisor"
        state = (f"{one.state:<9}", _STYLES.get(one.state, ""))
        rest = f"  {pid:<14} {one.workers} workers  {', '.join(one.addresses) or one.directory}"
        console.print(Text.assemble(f"{one.name:<16}  ", state, rest))
    if any(one.state == "orphaned" for one in found):
        console.print(Text("orphaned: 'stillup run' as before takes the workers over, 'stillup stop' ends them"))


def leaving(orphans: Sequence[Orphan]) -> None:
    """Who is still waited for."""
    names = ", ".join(f"{orphan.name} (pid {orphan.process.pid})" for orphan in orphans)
    _console().print(Text(f"  waiting for {names}"))


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def status(seen: Status) -> None:
    """The service at a glance."""
    console = _console()
    console.print(Text.assemble(f"{seen.name}  ", (seen.state, _STYLES.get(seen.state, "")), f"   pid {seen.pid}"))
    for listener in seen.listeners:
        named = "" if listener.name == listener.address else f"{listener.name}  "
        console.print(Text(f"  listens   {named}{listener.address}"))
    for generation in seen.generations:
        since = f" for {generation.draining_for:.0f} s" if generation.draining_for is not None else ""
        state = (generation.state + since, _STYLES.get(generation.state, ""))
        console.print(Text.assemble(f"  gen {generation.id:<4}  ", state, f"   {generation.release}"))
        for worker in generation.workers:
            console.print(
                Text(
                    f"    {worker.id:<7} {worker.state:<9} pid {worker.pid or '-':<8} "
                    f"{worker.connections} connections{_classes(worker)}, {worker.requests} requests{_ails(worker)}"
                )
            )
        for vacancy in generation.waiting:
            console.print(Text(f"    {vacancy.id:<7} waits     {_waits(vacancy)}", "yellow"))
    crossing = seen.crossing
    console.print(
        Text(
            f"  crossing  {crossing.given} given, {crossing.adopted} adopted, {crossing.waiting} waiting (room for "
            f"{crossing.capacity}), {crossing.lost} lost, {crossing.closed} closed, longest pause "
            f"{crossing.longest * 1000:.0f} ms"
        )
    )
    if seen.rollout is not None and seen.rollout.outcome is None:
        _line(console, "..", f"{_what(seen.rollout)} {seen.rollout.state}", seen.rollout.total)


def whoami(me: Whoami) -> None:
    """Who asks, by the kernel's word."""
    console = _console()
    groups = ", ".join(str(group) for group in me.groups) or "none"
    login = f", logged in as uid {me.login_uid}" if me.login_uid is not None else ""
    console.print(Text(f"uid {me.uid}, gid {me.gid}, groups {groups}, pid {me.pid}{login}"))
    console.print(Text.assemble("role  ", (me.role, "bold")))
    console.print(Text(f"may   {', '.join(me.may)}"))


def aborted(rollout: RolloutView) -> None:
    """A rollout that was called off."""
    kept = f"; gen {rollout.previous} never stopped serving" if rollout.previous is not None else ""
    _line(_console(), "ok", f"{_what(rollout)} is called off{kept}", rollout.total)


class Rollout:
    """A rollout as it goes on, a line for each thing that is done."""

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        """Show the rollout of service ``name``; ``quiet`` shows nothing."""
        self._name = name
        self._quiet = quiet
        self._shown: set[str] = set()
        self._console = _console()

    def update(self, rollout: RolloutView, *, told: bool = False) -> None:
        """Show what is new; ``told``: nothing more will be asked, so show what the old generation still has."""
        if self._quiet:
            return
        if rollout.state == "waiting":
            self._once("waiting", f"{self._name}  waits: too many older generations still drain")
        if rollout.generation is not None:
            self._once("head", f"{self._name}  gen {_move(rollout)}   {_releases(rollout)}")
        if rollout.outcome == "aborted":
            self._aborted(rollout)
        elif rollout.outcome == "rolled-back":
            self._rolled_back(rollout)
        elif rollout.outcome == "succeeded":
            self._succeeded(rollout, told=told)
        elif rollout.booting_for is not None and rollout.booting_for >= 1:
            seconds = int(rollout.booting_for)
            ready = f"{rollout.workers_ready}/{rollout.workers_wanted} ready"
            self._once(f"booting {seconds}", f"  boot      {ready}{'':<22}{seconds:>4} s ...")

    def _succeeded(self, rollout: RolloutView, *, told: bool) -> None:
        probe = f", {rollout.probe}" if rollout.probe else ""
        ready = f"{rollout.workers_wanted}/{rollout.workers_wanted} ready{probe}"
        self._once("boot", f"  boot      {ready:<30}{rollout.booting_for or 0:.1f} s")
        self._once("cut", f"  cut over  {'':<30}{(rollout.cut_over_took or 0) * 1000:.0f} ms")
        if rollout.state != "done" and not told:
            return
        if rollout.moved:
            pause = f"longest pause {rollout.longest_pause * 1000:.0f} ms"
            self._once("moved", f"  moved     {rollout.moved} connections, {pause}")
        if "ok" not in self._shown:
            self._shown.add("ok")
            closed = f", {rollout.closed} connections closed" if rollout.previous is not None else ""
            _line(self._console, "ok", f"gen {rollout.generation} serving{closed}", rollout.total)
        if rollout.state == "draining":
            what = f": {', '.join(f'{n} {kind}' for kind, n in rollout.drains.items())}" if rollout.drains else ""
            self._console.print(
                Text(f"  gen {rollout.previous} drains{what}; at most {rollout.drain_left or 0:.0f} s", "yellow")
            )
        elif rollout.previous is not None:
            self._once("left", f"  gen {rollout.previous} has left")

    def _aborted(self, rollout: RolloutView) -> None:
        if rollout.failure is not None:
            self._failed(rollout, rollout.failure)
        kept = f". gen {rollout.previous} never stopped serving." if rollout.previous is not None else "."
        how = "called off" if rollout.reason == CALLED_OFF else f"rejected ({rollout.reason})"
        _line(self._console, "no", f"{_what(rollout)} {how}{kept}")

    def _rolled_back(self, rollout: RolloutView) -> None:
        if rollout.failure is not None:
            self._console.print(Text(f"  {_process(rollout.failure)} {rollout.failure.message}"))
        _line(
            self._console,
            "no",
            f"gen {rollout.generation} crashed ({rollout.deaths} deaths): rolled back to {rollout.previous_release}",
        )

    def _failed(self, rollout: RolloutView, failure: FailureView) -> None:
        ready = f"{rollout.workers_ready}/{rollout.workers_wanted} ready"
        self._console.print(
            Text(f"  boot      {ready}; {_process(failure)} {failure.message} after {rollout.booting_for or 0:.1f} s")
        )
        for line in failure.output.splitlines():
            self._console.print(Text(f"  | {line}"))

    def _once(self, key: str, line: str) -> None:
        if key not in self._shown:
            self._shown.add(key)
            self._console.print(Text(line))


class Scaling:
    """A request for more or fewer workers as it goes on."""

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        """Show the request to service ``name``; ``quiet`` shows nothing."""
        self._name = name
        self._quiet = quiet
        self._seconds = 0
        self._console = _console()
        self._begun = False

    def update(self, scaling: ScalingView) -> None:
        """Show what is new."""
        if self._quiet:
            return
        if not self._begun:
            self._begun = True
            self._console.print(Text(f"{self._name}  {scaling.workers_before} -> {scaling.workers_wanted} workers"))
        if scaling.outcome == "aborted":
            self._aborted(scaling)
        elif scaling.outcome == "succeeded":
            _line(self._console, "ok", _serve(scaling), scaling.total)
            if scaling.workers_leaving:
                self._console.print(Text(f"  {scaling.workers_leaving} leaving, with what they hold", "yellow"))
        elif int(scaling.total) > self._seconds:
            self._seconds = int(scaling.total)
            self._console.print(Text(f"  {_serve(scaling):<40}{self._seconds:>4} s ..."))

    def _aborted(self, scaling: ScalingView) -> None:
        failure = scaling.failure
        if failure is not None:
            self._console.print(Text(f"  {_process(failure)} {failure.message}"))
            for line in failure.output.splitlines():
                self._console.print(Text(f"  | {line}"))
        _line(self._console, "no", f"{_serve(scaling)} ({scaling.reason})", scaling.total)
        if failure is not None:
            self._console.print(
                Text(f"  its slot is tried again; 'stillup scale {scaling.workers_before}' gives it up")
            )


def _process(failure: FailureView) -> str:
    """Who failed."""
    return f"{failure.worker} (pid {failure.pid})" if failure.pid is not None else failure.worker


def _ails(worker: WorkerView) -> str:
    """Why a worker is being replaced."""
    if worker.hung_for is not None:
        return f", hangs for {worker.hung_for:.0f} s"
    return f", worn: {worker.worn}" if worker.worn else ""


def _waits(vacancy: VacancyView) -> str:
    what = f"wore out young ({vacancy.worn})" if vacancy.worn else "died young"
    return f"{what} {vacancy.deaths} times in a row, next start in {vacancy.seconds:.0f} s"


def _serve(scaling: ScalingView) -> str:
    return f"{scaling.workers_serving} of {scaling.workers_wanted} serve"


def _line(console: Console, verdict: str, text: str, seconds: float | None = None) -> None:
    took = f"{seconds:.1f} s" if seconds is not None else ""
    console.print(Text.assemble((verdict, _STYLES.get(verdict, "")), f"  {text:<38}{took}".rstrip()))


def _what(rollout: RolloutView) -> str:
    """What a rollout is called: by its generation, once it has one."""
    return f"gen {rollout.generation}" if rollout.generation is not None else f"reload {rollout.id}"


def _move(rollout: RolloutView) -> str:
    return f"{rollout.previous} -> {rollout.generation}" if rollout.previous is not None else f"{rollout.generation}"


def _releases(rollout: RolloutView) -> str:
    if rollout.previous_release in ("", rollout.release):
        return rollout.release
    return f"{rollout.previous_release} -> {rollout.release}"


def _classes(worker: WorkerView) -> str:
    """What the connections do; of a draining worker also for how long the oldest of each class has."""
    ages = {kind: f" for {age:.0f} s" for kind, age in worker.oldest.items()}
    classes = (f"{count} {kind}{ages.get(kind, '')}" for kind, count in sorted(worker.classes.items()))
    return f" ({', '.join(classes)})" if worker.classes else ""
