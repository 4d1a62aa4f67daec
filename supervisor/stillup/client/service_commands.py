"""``stillup status``, ``whoami``, ``scale``, ``supervisor reexec`` and ``ls``."""

from __future__ import annotations

import sys
import time
from typing import Final

import click

from stillup.client import text_output
from stillup.client.client_errors import NOT_RUNNING, NotRunningError
from stillup.client.command_base import (
    FAILED,
    addressed,
    exit_as,
    json_option,
    leave,
    print_answer,
    print_json,
    refuse_elsewhere,
    remote_option,
    service_name,
    watching,
)
from stillup.client.control_client import Client
from stillup.client.plain_output import echo
from stillup.client.progress_output import ScalingProgress
from stillup.client.service_lookup import candidates
from stillup.client.text_output import ServiceLine
from stillup.client.watch_limit import WatchLimit, timeout_option, wait_option
from stillup.core.amounts import amount
from stillup.core.policy import MOST_WORKERS
from stillup.errors import StillupError
from stillup.wire.api_shapes import ScalingView

POLL: Final = 0.1
"""Seconds between two looks at a scaling."""
LOOK: Final = 5.0
"""Seconds that each service of a list may take to say how it is."""
REPLACED: Final = 30.0
"""Seconds for a supervisor to answer after it was told to replace its program."""


@click.command
@json_option("The whole status as JSON.")
@addressed
def status(client: Client, *, as_json: bool) -> None:
    """Show what runs: listeners, generations, workers, the rollout under way; and how the last ones ended.

    Those that were rejected, rolled back or refused are among them, and the last workers that died. They stay known
    while the supervisor is killed or replaced, until the service is stopped.

    Exit 0 while a worker serves, 3 while none does: nothing runs, it has yet to start or is stopping, or all have died.
    """
    seen = client.status()
    print_answer(seen, text_output.status, as_json=as_json)
    serving = (generation.workers for generation in seen.generations if generation.state == "serving")
    if not any(worker.state == "serving" for workers in serving for worker in workers):
        sys.exit(NOT_RUNNING)


@click.command
@json_option("The answer as JSON.")
@addressed
def whoami(client: Client, *, as_json: bool) -> None:
    """Say who you are to the supervisor, by the kernel's word, and what you may do.

    What counts is the process that connects: its uid, gid and supplementary groups as of then. Root and the
    supervisor's own user are admin; everybody else has the role that the configuration gives to their uid or to one of
    their groups, or none. A group that you were added to counts from your next login.
    """
    print_answer(client.whoami(), lambda me: text_output.whoami(me, service_name(client)), as_json=as_json)


@click.command
@click.argument("workers", metavar="N", type=click.IntRange(min=1, max=MOST_WORKERS))
@wait_option("none", "cut-over", "drained")
@timeout_option()
@json_option("The outcome as JSON.")
@addressed
def scale(client: Client, *, workers: int, wait: str, timeout: float | None, as_json: bool) -> None:
    """Have N workers.

    More are started beside those that serve; fewer drain, the last ones first, and finish what they hold. Later
    generations have as many, until the service is stopped, or its supervisor started with another --workers.

    Returns when N workers serve and those beyond take nothing new (exit 0; with --wait drained when those have left,
    too, with --wait none at once), or when a new one failed (exit 1; N are still wanted, and its slot is tried again),
    or when another number was asked for meanwhile (exit 5). Refused during a reload (exit 1). Ctrl-C and --timeout
    (exit 6) only stop watching.

    The same by signal, one at a time: kill -TTIN adds a worker, kill -TTOU takes one.
    """
    limit, goes_on = WatchLimit(timeout), f"{amount(workers, 'worker stays', 'workers stay')} wanted: stillup status"
    scaling = client.scale(workers)
    if wait == "none":
        if as_json:
            print_json(scaling)
        else:
            echo(f"{service_name(client)}  {goes_on}")
        return
    progress = ScalingProgress(client.status().name, drained=wait == "drained", quiet=as_json)
    with watching(goes_on):
        scaling = _followed(client, scaling, progress, limit)
    if as_json:
        print_json(scaling)
    limit.exit_if_it_came(goes_on)
    exit_as(scaling)


def _followed(client: Client, scaling: ScalingView, progress: ScalingProgress, limit: WatchLimit) -> ScalingView:
    """Show a request for a number of workers until it has come as far as is watched."""
    while True:
        progress.update(scaling)
        if progress.is_over(scaling) or limit.has_come():
            return scaling
        time.sleep(POLL)
        scaling = client.scaling(scaling.id)


@click.group
def supervisor() -> None:
    """What concerns the supervisor's own program, not the app's."""


@supervisor.command(short_help="Put the stillup that is installed now in the place of the one that runs.")
@addressed
def reexec(client: Client) -> None:
    """Put the stillup that is installed now in the place of the one that runs, with the options it was started with.

    The new program is tried out first; if it fails, nothing has happened (exit 1). Then it takes this one's place in
    the same process: the pid stays, the workers serve on, no connection is closed. Returns when it answers.

    Refused while a rollout is under way or a worker is being started (exit 1). The same by signal: kill -USR2.
    """
    before = client.status()
    client.reexec()
    until = time.monotonic() + REPLACED
    while time.monotonic() < until:
        try:
            after = client.status()
        except NotRunningError:  # between its two programs a supervisor may hang up
            after = before
        if after.reexecs > before.reexecs:
            echo(f"ok  {after.name}: pid {after.pid} runs stillup {after.version} (before: {before.version})")
            return
        time.sleep(POLL)
    leave(f"the supervisor (pid {before.pid}) did not answer within {REPLACED:g} s: see its log", FAILED)


@click.command
@remote_option
@json_option("The list as JSON.")
def ls(*, remote: str | None, as_json: bool) -> None:
    """List the services of this user, and those of the host that this user may connect to.

    Each with how its last rollout ended, and the last worker that died. Those whose supervisor has died and whose
    workers serve on are among them.
    """
    refuse_elsewhere(remote, "ls")
    found = [service for place in candidates() if (service := _service(place)) is not None]
    print_answer(found, text_output.services, as_json=as_json)


def _service(place: str) -> ServiceLine | None:
    name = place.rpartition("/")[2]
    try:
        seen = Client(place, timeout=LOOK).status()
    except NotRunningError:
        from stillup.client.orphans import orphans  # noqa: PLC0415 - as above

        with orphans(place) as left:
            return ServiceLine(name, "orphaned", place, None, len(left), []) if left else None
    except StillupError as error:
        return ServiceLine(name, f"unknown ({error})", place, None, 0, [])
    workers = sum(len(generation.workers) for generation in seen.generations)
    return ServiceLine(
        seen.name,
        seen.state,
        place,
        seen.pid,
        workers,
        [at.address for at in seen.listeners],
        outcome=next(iter(seen.outcomes), None),
        death=next(iter(seen.deaths), None),
    )
