"""The shapes of the control API's answers. Durations are seconds."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from stillup.core.worker_figures import WorkerFigures
from stillup.wire.crossing_view import CrossingView
from stillup.wire.hook_views import HookView
from stillup.wire.watch_views import WatchView


class ListenerView(msgspec.Struct, frozen=True):
    """A listener: its name, and the address that it got."""

    name: str
    address: str
    trouble: str = ""
    """Why nobody can connect to it any more: its socket file is gone, or another's. A reload puts it back."""
    state: str = "serving"
    """``serving``; ``added``: a rollout brings it, and who connects waits for its cut-over; ``removed``: it is accepted
    on until the probation is over and older generations have left, and closed then."""


class WorkerView(WorkerFigures, frozen=True, kw_only=True):
    """A worker with all its figures; ``connections`` is all of them, ``classes`` tells what they are doing."""

    id: str
    pid: int | None
    state: str
    connections: int
    age: float
    worn: str = ""
    """Why it is being replaced; empty while it is not."""
    hung_for: float | None = None
    """Seconds without a word of it, once it was found to hang."""
    probe: str = ""
    """What the health probe was answered last, while it boots: ``/healthz 503``; empty without a word of it."""
    leader: bool = False
    """Whether it leads: it was told to, and says that it does."""
    birth: str | None = None
    """How its process came to be: ``forked`` or ``forked warm`` from a template, or ``spawned``; null before that."""


class VacancyView(msgspec.Struct, frozen=True):
    """A slot that waits for its next worker, since its workers keep dying young (or wearing out young)."""

    id: str
    """The slot as its worker will be called: ``2.1``."""
    deaths: int
    """How many died, or wore out, young in a row."""
    seconds: float
    """Until the next start."""
    worn: str = ""
    """Why the worker that serves in it meanwhile is to be replaced; empty if none does."""


class GenerationView(msgspec.Struct, frozen=True):
    """A generation and its workers."""

    id: int
    state: str
    release: str
    workers: list[WorkerView]
    draining_for: float | None = None
    standby_left: float | None = None
    """How long a rollback would still have it serve again at once; None unless it stands by."""
    waiting: list[VacancyView] = []
    """By slot."""


class FailureView(msgspec.Struct, frozen=True):
    """Why a worker did not come to serve, or a hook failed before there was one, with the tail of its own output.

    ``message`` and ``output`` are for operators, and empty for viewers: the app chose them.
    """

    stage: str
    message: str
    worker: str
    pid: int | None
    output: str


class SettingChangeView(msgspec.Struct, frozen=True):
    """A key of the configuration file that says something else than before."""

    key: str
    """Or the path of the file, if that is gone."""
    effect: str
    """``applied``, ``overridden``, ``needs-reexec``, ``needs-restart`` or ``file-gone``."""
    by: str = ""
    """The flag or the variable that overrides it."""
    what: str = ""
    """Of ``bind``: which one, and what becomes of it, such as ``127.0.0.1:8001 added``; empty of any other key."""


class StepView(msgspec.Struct, frozen=True):
    """How far a rollout has come that replaces some workers at a time."""

    old: int
    """Workers of the generation before that serve."""
    new: int
    """Workers of the new generation that serve."""
    of: int
    """Workers wanted."""


class RolloutView(msgspec.Struct, frozen=True):
    """A rollout, under way or ended.

    ``outcome`` is null until it has one: ``succeeded`` or ``aborted``. A success becomes ``rolled-back`` if the new
    workers crash soon after it; ``reason`` is ``crashed`` then, and the rollout whose ``rolls_back`` is its id follows.
    """

    id: int
    state: str
    outcome: str | None
    why: str
    generation: int | None
    previous: int | None
    release: str
    previous_release: str
    workers_wanted: int
    workers_ready: int
    probe: str
    """What a health probe saw last, be it healthy (of the last worker that was READY) or not yet: ``/healthz 503``."""
    booting_for: float | None
    """From the first spawn until all were READY, or until now."""
    cut_over_took: float | None
    total: float
    """From the request until the cut-over or the abort, or until now."""
    reason: str
    failure: FailureView | None
    drains: dict[str, int]
    """What the previous generation still has, by class; while ``step`` is there, what those of both have that drain."""
    drain_left: float | None
    """Seconds until its drain's deadline."""
    moved: int = 0
    """Connections that the previous generation has given away."""
    moved_sessions: int = 0
    """Sessions among them."""
    refused_sessions: int = 0
    """Sessions that did not go on in the new generation."""
    closed: int = 0
    """Connections without a request in progress that it had to end."""
    told_to_close: int = 0
    """Connections that ended while its answers said ``Connection: close``, because they could not move."""
    longest_pause: float = 0.0
    """Seconds; the longest that a connection was between two workers, as far as the new generation has seen."""
    rolls_back: int | None = None
    """The rollout that this one takes back."""
    deaths: int = 0
    """Workers of the new generation that died by themselves in its probation."""
    probation_left: float | None = None
    """Seconds until its probation is over; null before its cut-over, and after."""
    serves: bool = False
    """Whether the new generation is the one that serves."""
    stopped: bool = False
    """Whether it was, when the service was told to end: nothing serves in its place."""
    changes: list[SettingChangeView] = []
    """What was changed in the configuration file, which was read again for it."""
    waits_for: list[int] = []
    """While it waits: the generations of which one has to leave first; ``drains`` and ``drain_left`` are theirs."""
    hooks: list[HookView] = []
    """What was run before its first worker, and after its cut-over; those of the last 32 that ended are known."""
    strategy: str = "blue-green"
    """Or ``rolling``, ``canary``."""
    step: StepView | None = None
    """While both generations may serve, on the way forth (``shifting``, ``watching``) or back (``going-back``)."""
    standby_left: float | None = None
    """How long the generation before still stands by; None if it does not."""
    workers_queued: int = 0
    """Workers of the new generation that wait for their boot: as many boot as may at once."""
    changed: bool = True
    """False: ``if_changed`` was asked for, and this rollout has brought what would have been brought, or is at it."""
    births: list[str] = []
    """How the processes of the new generation's workers came to be (``birth`` of a worker); empty once none is left."""
    watch: WatchView | None = None


class OutcomeView(msgspec.Struct, frozen=True):
    """How a rollout ended, or a reload that was refused before a rollout was made of it."""

    outcome: str
    """``succeeded``, ``aborted``, ``rolled-back`` or ``refused``."""
    ago: float
    """Since then."""
    rollout: int | None
    generation: int | None
    release: str
    """Empty of one that was refused."""
    why: str
    """Who asked for it, or what did."""
    reason: str
    """Of all but a success: as in a rollout; of one that was refused, the type of the problem."""
    failure: str
    """Which worker failed and how, without a word of its app's; empty if none did."""
    message: str = ""
    """Of one that was refused, why; empty for viewers."""


class DeathView(msgspec.Struct, frozen=True):
    """A worker that ended without having been told to, or in the middle of its drain."""

    id: str
    pid: int | None
    how: str
    ago: float
    """Since then."""


class ScalingView(msgspec.Struct, frozen=True):
    """A request for more or fewer workers. ``outcome`` is null until it has one: ``succeeded`` or ``aborted``."""

    id: int
    state: str
    outcome: str | None
    workers_wanted: int
    workers_before: int
    """As many were wanted before."""
    workers_serving: int
    """Of the generation that serves; of both while a rollout replaces some at a time."""
    workers_leaving: int
    """Of those beyond the number, those that finish what they hold."""
    total: float
    """From the request until its outcome, or until now."""
    reason: str
    failure: FailureView | None
    workers_booting: int = 0
    """Of the same, those on the way into service."""
    drains: dict[str, int] = {}
    """What those that leave still have, by class."""
    drain_left: float | None = None
    """Seconds until the deadline of the last one's drain; null if none leaves."""
    changed: bool = True
    """False: as many were wanted before."""


class ProcessFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor's process says of itself: ``host.own_process`` makes it, the status has all of it."""

    version: str
    """Of the stillup that runs."""
    pid: int
    uptime: float = 0.0
    """Seconds since the process was started; one that has replaced its program goes on counting."""
    cpu: float = 0.0
    """Seconds of processor time that it has used since then."""
    memory: int = 0
    """Bytes of it in memory, pages that it shares included; 0 if that is not known."""


class SupervisorView(ProcessFigures, frozen=True, kw_only=True):
    """What the supervisor knows beside the fleet."""

    name: str
    """The service's."""
    reexecs: int = 0
    """How often the supervisor has replaced its own program."""
    listeners: list[ListenerView]
    stop_command: str = ""
    """How the service manager that started it is told to stop it; empty if none did."""
    stop_delay: float = 0.0
    """Seconds that a stop is announced before it begins."""
    stop_budget: float = 0.0
    """Seconds that a service manager is to give a stop; 0 where that is not known."""


class Status(SupervisorView, frozen=True, kw_only=True):
    """The whole service."""

    state: str
    cordoned_for: float | None = None
    """Seconds since when no new clients are to be sent; null while they are."""
    generations: list[GenerationView]
    crossing: CrossingView
    rollout: RolloutView | None
    """The rollout under way, or else the last one."""
    outcomes: list[OutcomeView] = []
    """How the last rollouts ended, the newest first."""
    deaths: list[DeathView] = []
    """The last workers that died, the newest first."""
    hook: HookView | None = None
    """The program that is run around a rollout now, if one is."""


class Versions(msgspec.Struct, frozen=True):
    """Of the supervisor's program, and of what it speaks."""

    version: str
    """Of stillup."""
    api: str
    """``MAJOR.MINOR``, as in the header ``Stillup-API``."""
    handoff: list[int]
    """Versions of the hand-off protocol: workers of an older release may be alive."""
    python: str
    uvicorn: str
    instance: str = ""
    """Of the supervisor's process: another one has another, and the same keeps it when it replaces its program. Empty:
    an older one does not say."""


class Whoami(msgspec.Struct, frozen=True):
    """Who the caller is by the kernel's word, and what that caller may do."""

    uid: int
    gid: int
    groups: list[int]
    """Supplementary groups."""
    pid: int
    """0: a process of another pid namespace."""
    login_uid: int | None
    """The user who logged in, kept over su and sudo; null if none did, or it is not known."""
    exe: str
    """The program; empty if it is not known."""
    role: str
    may: list[str]
    """The names of the operations that may be asked for here."""
    unseen: str = ""
    """Why that is no more than a viewer may: the caller might be a worker, which could not be seen. Empty if it could.
    """


class LiveView(msgspec.Struct, frozen=True):
    """The supervisor answers."""

    live: bool = True


class ReadyView(msgspec.Struct, frozen=True):
    """A worker serves."""

    ready: bool = True
    trouble: list[str] = []
    """Listeners to which nobody can connect any more, while others are reached: their addresses, and why."""


class Cordoned(msgspec.Struct, frozen=True):
    """Whether clients are to be sent, and whether that was new."""

    cordoned: bool
    changed: bool
    sockets: list[str] = []
    """The names of listeners that ``.socket`` units of the service manager hold, too: those go on after a stop."""


class Stopping(msgspec.Struct, frozen=True):
    """The service is ending."""

    state: str


class Replacing(msgspec.Struct, frozen=True):
    """The supervisor's program is about to be replaced; ``reexecs``: how often it was before."""

    reexecs: int
    state: str = "replacing"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    rollout: RolloutView | None = None
    scaling: ScalingView | None = None
    help: str = ""
    """Where the type is explained: page and anchor."""


V = TypeVar("V", Status, RolloutView, ScalingView, GenerationView, WorkerView)


def without_output(view: V) -> V:
    """The same without what a failed worker wrote or said, and what any says of its app's threads.

    That may be anything, and not every viewer is to read it.
    """
    match view:
        case Status():
            rollout = without_output(view.rollout) if view.rollout is not None else None
            outcomes = [msgspec.structs.replace(outcome, message="") for outcome in view.outcomes]
            generations = [without_output(generation) for generation in view.generations]
            return msgspec.structs.replace(view, generations=generations, rollout=rollout, outcomes=outcomes)
        case GenerationView():
            return msgspec.structs.replace(view, workers=[without_output(worker) for worker in view.workers])
        case WorkerView():
            return msgspec.structs.replace(view, threads="")
        case _:
            failure = msgspec.structs.replace(view.failure, message="", output="") if view.failure is not None else None
            return msgspec.structs.replace(view, failure=failure)
