"""Going on where another supervisor ended: who lives, what they hold, and the fleet that they are.

Custody is back as soon as one worker that serves has returned its copies. Nothing is bound anew before every worker
that might hold it has spoken or exited; so no second socket ever takes the place of one that lives.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from supervisor.core.model import Fleet, Policy, Release
from supervisor.core.recovery import SIZES, UNACCEPTED, Claim, rebuild
from supervisor.core.release import label
from supervisor.daemon.handoff import Claimant, HandoffDoor
from supervisor.daemon.holder import Holder
from supervisor.errors import Refused
from supervisor.host import processes
from supervisor.host.processes import Process
from supervisor.wire.address import Bind, resembles
from supervisor.wire.handoff import LONGEST_WAIT, Welcome
from supervisor.wire.record import Record

logger = logging.getLogger("stillup")

CLAIMS: Final = 2.5 * LONGEST_WAIT
"""Seconds in which workers that are on no record may come back: longer than any of them waits between two attempts."""
PATIENCE: Final = 30.0
"""Seconds for a worker that may hold the listeners and says nothing; then it counts as hung, and is ended."""
TELL: Final = 2.0
"""Seconds between two words about whom we wait for."""


def check_user(record: Record, worker_uid: int) -> None:
    """See that those on record who live may connect to our hand-off socket, which is of ``worker_uid`` and of root.

    Raises:
        Refused: one is of another user; it could not come back, and would be ended for that.
        OSError: there is no descriptor left.
    """
    living = survivors(record).values()
    strange = {process.pid: uid for process in living if (uid := processes.owner(process.pid)) not in (0, worker_uid)}
    for process in living:
        process.close()
    for pid, uid in strange.items():
        if uid is not None:  # else it has just ended
            raise Refused(
                f"a worker of uid {uid} serves here (pid {pid}), and workers are to be of uid {worker_uid} now: "
                "start with the --worker-user that they have, or end them first ('stillup stop')",
                code="unavailable",
            )


def survivors(record: Record) -> dict[int, Process]:
    """Take hold of those on record that live, by serial; the caller owns them.

    Raises:
        OSError: there is no descriptor left.
    """
    found: dict[int, Process] = {}
    for serial, worker in record.fleet.workers.items():
        if worker.pid is not None and (process := processes.find(worker.pid, worker.started)) is not None:
            found[serial] = process
    return found


async def until_custody_is_back(
    record: Record, living: Mapping[int, Process], door: HandoffDoor, holder: Holder
) -> dict[int, Process]:
    """Wait until everything on record is in custody, or nobody is left who might return what is missing.

    Returns:
        Those who live still; the others are closed.
    """
    loop = asyncio.get_running_loop()
    for serial, process in living.items():
        if record.fleet.workers[serial].state in UNACCEPTED:
            # It leaves by itself, unless it hangs in its app's import: then it holds copies for nothing.
            process.signal(signal.SIGTERM)
    ends = loop.time() + PATIENCE

    def silent() -> dict[int, Process]:
        return {
            serial: process
            for serial, process in living.items()
            if record.fleet.workers[serial].comes_back and serial not in door.spoken and not process.has_ended()
        }

    while not holder.has_all_of(record) and (waiting := silent()):
        if loop.time() > ends:
            for serial, process in waiting.items():
                logger.error("worker %s (pid %d) holds the listeners and says nothing: killed", serial, process.pid)
                process.kill()
        await _change(door.changed, [process.pidfd for process in waiting.values()], TELL)
        if not holder.has_all_of(record) and silent():
            pids = ", ".join(str(process.pid) for process in silent().values())
            logger.info("waiting for the workers that hold the listeners (pid %s)", pids)
    return _still_living(living)


def _still_living(processes: Mapping[int, Process]) -> dict[int, Process]:
    living = {serial: process for serial, process in processes.items() if not process.has_ended()}
    for serial, process in processes.items():
        if serial not in living:
            process.reap()  # if it was a child of ours
            process.close()
    return living


async def _change(changed: asyncio.Event, pidfds: list[int], seconds: float) -> None:
    """Wait until somebody has come back or has ended, but not for longer than that."""
    loop = asyncio.get_running_loop()
    for pidfd in pidfds:
        loop.add_reader(pidfd, changed.set)
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        pass
    finally:
        changed.clear()
        for pidfd in pidfds:
            loop.remove_reader(pidfd)


async def hear_claims(door: HandoffDoor, binds: tuple[Bind, ...]) -> list[Claimant]:
    """Those that come back though no record knows them, and hold a listener that is configured, or drain."""
    claimants: dict[int, Claimant] = {}

    def claim(claimant: Claimant) -> None:
        before = claimants.pop(claimant.process.pid, None)
        if before is not None:  # it has lost its channel, and comes again
            before.process.close()
        claimants[claimant.process.pid] = claimant

    door.claim = claim
    logger.info("no record of what ran here: hearing for %g s whether workers are left", CLAIMS)
    await asyncio.sleep(CLAIMS)
    door.claim = None
    return [claimant for claimant in claimants.values() if _is_ours(claimant, binds)]


def _is_ours(claimant: Claimant, binds: tuple[Bind, ...]) -> bool:
    said = claimant.said
    wanted = said.draining or any(resembles(bind.address, info.address) for info in said.listeners for bind in binds)
    ours = wanted and said.welcome.worker in SIZES and said.welcome.generation > 0
    if not ours:
        where = ", ".join(info.address for info in said.listeners)
        logger.warning("pid %d is a worker of another service, on %s: not taken in", claimant.process.pid, where)
        claimant.process.close()
    return ours


def fleet_of(claimants: list[Claimant], like: Release, policy: Policy, size: int, now: float) -> Fleet:
    """The fleet that these are; each has the serial of its place. They run what they say, ``like`` what we would."""
    claims = [
        Claim(
            claimant.process.pid,
            claimant.process.started,
            claimant.said.welcome.generation,
            claimant.said.welcome.worker,
            claimant.said.draining,
            _release(claimant.said.welcome, like),
        )
        for claimant in claimants
    ]
    return rebuild(claims, policy=policy, size=size, now=now)


def _release(welcome: Welcome, like: Release) -> Release:
    """What a worker runs, by its own word, but for the interpreter and the environment: it does not know its own."""
    return replace(
        like,
        app=welcome.app,
        directory=welcome.directory,
        app_dir=welcome.app_dir,
        label=label(welcome.directory),
        options=welcome.options,
        health_path=welcome.health_path,
        health_host=welcome.health_host,
        max_worker_age=welcome.max_age,
        max_worker_rss=welcome.max_rss,
    )
