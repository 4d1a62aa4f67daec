"""Start-up: the first fleet, and the first events of its engine.

From nothing, with an empty fleet and a first reload; or going on where another supervisor ended, with its workers. No
engine runs yet: what is found here is a value, and the engine is made with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

import msgspec

from stillup.core import listeners
from stillup.core.events import Event, HookLeft, ParkingLost, RefusalNoted, ReloadAsked, TookOver
from stillup.core.model import Fleet, Release
from stillup.core.outcomes import check_not_rolled_back
from stillup.core.rebuild import first_fleet, fleet_of_record
from stillup.core.release import same
from stillup.core.step import step
from stillup.core.values import replace
from stillup.daemon.assembly import Opened, WorkerSide
from stillup.daemon.state.disk import in_thread
from stillup.daemon.workers import takeover
from stillup.errors import Refused
from stillup.host.processes import Process

logger = logging.getLogger("stillup")

_ANOTHER_CONFIGURATION: Final = "another configuration"


class Beginning(msgspec.Struct, frozen=True):
    """How an engine begins."""

    fleet: Fleet
    events: tuple[Event, ...]
    """To be submitted first of all, in this order."""
    living: Mapping[int, Process] = msgspec.field(default_factory=dict)
    """By serial, the workers of another supervisor. They belong to who adopts them."""
    hook: Process | None = None
    """The process of the hook that another supervisor has left. It belongs to who adopts it."""


async def begin(opened: Opened, worker_side: WorkerSide) -> Beginning:
    """Find what there is, with everything in custody when this returns.

    Raises:
        Refused: that cannot be. Workers that were found serve on without us.
    """
    if not opened.left_behind:
        await worker_side.figures.remove()  # nobody who is alive counts in what there may be
        beginning = _from_nothing(opened)
    else:
        try:
            beginning = await _take_over(opened, worker_side)
        except OSError as error:
            raise Refused(f"cannot take over: {error}; the workers serve on", code="unavailable") from error
    worker_side.record_writer.holds(opened.custody.records(), opened.custody.cookies)
    if opened.policy.parks and not await _is_kept(opened):
        opened.custody.outlived = False
        return replace(beginning, events=(*beginning.events, ParkingLost()))
    return beginning


def _from_nothing(opened: Opened, before: Fleet | None = None, hook: Process | None = None) -> Beginning:
    fleet = replace(first_fleet(opened.policy, opened.settings.workers, before), listeners=opened.custody.keys)
    return Beginning(fleet, (*_of_hook(fleet, hook), ReloadAsked(opened.release, "start")), hook=hook)


def _of_hook(fleet: Fleet, hook: Process | None) -> tuple[Event, ...]:
    """What is to be said of the hook that is under way on record; ``hook``: its process, if that lives."""
    return (HookLeft(hook is not None),) if fleet.hook_under_way is not None else ()


async def _take_over(opened: Opened, worker_side: WorkerSide) -> Beginning:
    """Take custody back from the workers of a supervisor that has ended, and go on where it ended.

    Raises:
        Refused: a listener that nobody has returned cannot be had. The workers go on without us.
        OSError: there is no descriptor left.
    """
    settings, record, admission = opened.settings, opened.record, worker_side.admission
    hook = takeover.hook_left(record) if record is not None else None
    if record is not None:
        fleet = fleet_of_record(record.fleet, opened.policy)
        living = takeover.survivors(record)
        for serial, process in living.items():
            admission.know(worker_side.record_writer.nonce(serial), serial, process)
        living = await takeover.until_custody_is_back(record, living, admission, opened.custody)
        claimants = []
    else:
        claimants = await takeover.hear_claims(admission, settings.binds)
        living = {serial: claimant.process for serial, claimant in enumerate(claimants, 1)}
        now = asyncio.get_running_loop().time()
        fleet = takeover.fleet_of(claimants, opened.release, opened.policy, settings.workers, now)
        worker_side.record_writer.claimed({serial: one.said.nonce for serial, one in enumerate(claimants, 1)})
    await worker_side.figures.load(living)
    # With nobody left a start is as any other: what is not asked for is closed at once.
    wanted = listeners.wanted(fleet, asyncio.get_running_loop().time()) if living and fleet.serving else frozenset()
    whole = opened.custody.open(settings.binds, settings.backlog, record, wanted)
    fleet = replace(fleet, listeners=opened.custody.keys)
    if not living:
        return _from_nothing(opened, record.fleet if record is not None else None, hook)
    for serial, claimant in enumerate(claimants, 1):
        admission.know(claimant.said.nonce, serial, claimant.process)
    rescaled = record is not None and record.workers_wanted != settings.workers
    taken = TookOver(frozenset(living), settings.workers if rescaled else None)
    reason = _reason_to_reload(opened, fleet, taken, whole=whole)
    events = (taken, *_of_hook(fleet, hook), *reload_after_takeover(fleet, opened.release, reason))
    return Beginning(fleet, events, living, hook)


def reload_after_takeover(fleet: Fleet, release: Release, reason: str) -> tuple[Event, ...]:
    """The reload that a reason makes necessary; none if there is no reason.

    A release that was rolled back is not put into service again because a supervisor is another one by now: it is what
    is on the disk still. What serves goes on, and is started anew where other listeners or workers are wanted.
    """
    if not reason:
        return ()
    try:
        check_not_rolled_back(fleet, release)
    except Refused as refusal:
        if fleet.serving is not None and reason == _ANOTHER_CONFIGURATION:
            return (RefusalNoted(reason, refusal.code, str(refusal)),)
        return (ReloadAsked(fleet.serving.release if fleet.serving is not None else release, reason, force=True),)
    return (ReloadAsked(release, reason),)


def _reason_to_reload(opened: Opened, fleet: Fleet, taken: TookOver, *, whole: bool) -> str:
    """Why what was found is not what we were started with; empty if it is. ``whole``: all that is asked for came."""
    if opened.record is None:
        return "no record of what runs"
    after = step(fleet, taken, asyncio.get_running_loop().time()).fleet
    running = after.pending or after.serving
    if running is None:
        return "start"
    if taken.size is not None:
        return "another number of workers"
    if not (running.release.binds or whole) or not opened.custody.came_back.issuperset(running.release.binds):
        return "other listeners"
    return "" if same(running.release, opened.release) else _ANOTHER_CONFIGURATION


async def _is_kept(opened: Opened) -> bool:
    """Have systemd keep what is in custody. If it does not, a restart is a stop like any other, and a start."""
    try:
        await in_thread(opened.store.keep, *opened.custody.descriptors())
    except (OSError, Refused) as error:
        logger.error("systemd does not keep our sockets over a restart: %s", error)  # noqa: TRY400 - no bug
        return False
    return True
