"""Going on where another supervisor ended: who lives, what they hold, and the fleet that they are.

Custody is back as soon as one worker that serves has returned its copies. Nothing is bound anew before every worker
that might hold it has spoken or exited; so no second socket ever takes the place of one that lives.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from typing import Final

from stillup.core.amounts import amount
from stillup.core.lifecycle import UNACCEPTED
from stillup.core.model import Fleet, Release
from stillup.core.policy import MOST_WORKERS, SIZES, Policy
from stillup.core.rebuild import Claim, rebuild
from stillup.core.release import label
from stillup.core.values import replace
from stillup.daemon.settings.rights import Rights
from stillup.daemon.state.custody import Custody
from stillup.daemon.state.thread_wait import PARTS
from stillup.daemon.workers.admission import Admission, Claimant
from stillup.errors import Refused
from stillup.host import processes
from stillup.host.process_groups import kill_left_behind, signal_group
from stillup.host.processes import Process
from stillup.wire.address import Bind, resembles
from stillup.wire.handoff_messages import LONGEST_WAIT, Welcome
from stillup.wire.record_format import Record

logger = logging.getLogger("stillup")

CLAIMS: Final = 5 * LONGEST_WAIT
"""Seconds in which workers that are on no record may come back: longer than any waits between two attempts, also if one
stands still meanwhile. Whoever comes later is not taken in, and its listener may be bound anew."""
PATIENCE: Final = 30.0
"""Seconds for a worker that may hold the listeners and says nothing; then it counts as hung, and is ended."""
MOST_GENERATIONS: Final = 2**31
"""No service has had more."""
TELL: Final = 2.0
"""Seconds between two log lines that name the workers we wait for."""


def admitting(record: Record, rights: Rights) -> Rights:
    """The rights with which those on record who live may connect to our hand-off socket.

    It is root's and one other user's. An app that root's workers run may have made itself that user, by setuid(2): what
    is on record of it is its process, whoever that is by now.

    Raises:
        Refused: one is of another user; it could not come back, and would be ended for that.
        OSError: there is no descriptor left.
    """
    living = survivors(record).values()
    owners = [(processes.owner(process.pid), process.pid) for process in living]
    group = rights.worker.gid if rights.worker is not None else None
    shut_out = [uid for uid, pid in owners if uid == rights.worker_uid and group not in processes.groups(pid)]
    for process in living:
        process.close()
    strange = {uid: pid for uid, pid in owners if uid not in (None, 0, rights.worker_uid)}  # None: it has just ended
    if not strange and group is not None and shut_out:
        return replace(rights, orphans_uid=rights.worker_uid)  # --worker-group is another than theirs was
    if not strange:
        return rights
    if len(strange) == 1 and rights.worker is None and os.geteuid() == 0:
        (uid,) = strange
        logger.info("the workers that are left have made themselves uid %s: they are let in", uid)
        return replace(rights, orphans_uid=uid)
    if len(strange) == 1:
        ((uid, pid),) = strange.items()
        found = f"a worker of uid {uid} serves here (pid {pid}), and workers are to be of uid {rights.worker_uid} now"
        way_out = "start with the --worker-user that they have, or end them first ('stillup stop')"
    else:
        found = f"workers of uid {' and '.join(map(str, sorted(strange)))} serve here, and one user's can be taken over"
        way_out = "end them first ('stillup stop')"
    raise Refused(f"{found}: {way_out}", code="unavailable")


def survivors(record: Record) -> dict[int, Process]:
    """Take hold of those on record that live, by serial; the caller owns them.

    Raises:
        OSError: there is no descriptor left.
    """
    found: dict[int, Process] = {}
    for serial, worker in record.fleet.workers.items():
        if worker.pid is None:
            continue
        if (process := processes.find(worker.pid, worker.started)) is not None:
            found[serial] = process
        elif killed := kill_left_behind(worker.pid, worker.started):
            logger.warning(
                "%s of worker %s outlived it: killed",
                amount(killed, "process", "processes"),
                worker.name,
            )
    return found


def hook_left(record: Record) -> Process | None:
    """Take hold of the hook on record that is under way, if it lives; the caller owns it. What it left is killed.

    Raises:
        OSError: there is no descriptor left.
    """
    hook = record.fleet.hook_under_way
    if hook is None or hook.pid is None:
        return None
    process = processes.find(hook.pid, hook.started)
    if process is None and (killed := kill_left_behind(hook.pid, hook.started)):
        logger.warning("%s of the hook %s outlived it: killed", amount(killed, "process", "processes"), hook.name)
    return process


async def until_custody_is_back(
    record: Record, living: Mapping[int, Process], admission: Admission, custody: Custody
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
            if serial not in admission.spoken and not process.has_ended()
        }

    while not custody.has_all_of(record) and (waiting := silent()):
        if loop.time() > ends:
            for serial, process in waiting.items():
                logger.error("worker %s (pid %d) holds the listeners and says nothing: killed", serial, process.pid)
                process.kill()
        await _change(admission.changed, [process.pidfd for process in waiting.values()], TELL)
        if not custody.has_all_of(record) and silent():
            pids = ", ".join(str(process.pid) for process in silent().values())
            logger.info("waiting for the workers that hold the listeners (pid %s)", pids)
    return _still_living(living)


def _still_living(processes: Mapping[int, Process]) -> dict[int, Process]:
    living = {serial: process for serial, process in processes.items() if not process.has_ended()}
    for serial, process in processes.items():
        if serial not in living:
            signal_group(process, signal.SIGKILL)
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


async def hear_claims(admission: Admission, binds: tuple[Bind, ...]) -> list[Claimant]:
    """Those that come back though no record knows them, and hold a listener that is configured, or drain."""
    claimants: dict[int, Claimant] = {}

    def claim(claimant: Claimant) -> None:
        before = claimants.pop(claimant.process.pid, None)
        if before is not None:  # it has lost its channel, and comes again
            before.process.close()
        if len(claimants) >= MOST_WORKERS:
            logger.warning("pid %d is one worker too many: not taken in", claimant.process.pid)
            claimant.process.close()
            return
        claimants[claimant.process.pid] = claimant

    admission.claim = claim
    logger.info("no record of what ran here: hearing for %g s whether workers are left", CLAIMS)
    for _ in range(PARTS):  # a machine that stands still keeps them as long as us, and takes one part of the time
        await asyncio.sleep(CLAIMS / PARTS)
    admission.claim = None
    return [claimant for claimant in claimants.values() if _is_ours(claimant, binds)]


def _is_ours(claimant: Claimant, binds: tuple[Bind, ...]) -> bool:
    said = claimant.said
    wanted = said.draining or any(resembles(bind.address, info.address) for info in said.listeners for bind in binds)
    ours = wanted and said.welcome.worker in SIZES and 0 < said.welcome.generation <= MOST_GENERATIONS
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
            claimant.said.draining or claimant.said.paused,
            _release(claimant.said.welcome, like),
            claimant.said.leads,
        )
        for claimant in claimants
    ]
    return rebuild(claims, policy=policy, size=size, now=now)


def _release(welcome: Welcome, like: Release) -> Release:
    """What a worker runs, by its own word, but for the interpreter and the environment: it does not know its own.

    Who is believed, has our terminal, or has its output taken for what it says, no worker decides.
    """
    ours = like.settings
    return replace(
        like,
        app=welcome.app,
        directory=welcome.directory,
        app_dir=welcome.app_dir,
        label=label(welcome.directory),
        options=welcome.options,
        settings=replace(
            welcome.settings,
            proxy_uids=ours.proxy_uids,
            proxy_gids=ours.proxy_gids,
            log_form=ours.log_form,
            log_capture=ours.log_capture,
            reload_dirs=ours.reload_dirs,
            has_terminal=ours.has_terminal,
        ),
    )
