"""``stillup status``, ``whoami``, ``scale``, ``stop``, ``ls``: what they say, and how they exit (see ``command``)."""

from __future__ import annotations

import sys
import time

import click

from supervisor.client import orphans, show
from supervisor.client.command import addressed, leave, print_json
from supervisor.client.find import every
from supervisor.client.http import Client, NotRunningError
from supervisor.core.scaling import MOST_WORKERS
from supervisor.errors import StillupError

POLL = 0.1
"""Seconds between two looks at a scaling."""
LOOK = 5.0
"""Seconds that each service of a list may take to say how it is."""
REPLACED = 30.0
"""Seconds for a supervisor to answer after it was told to replace its program."""


@click.command(short_help="Show what runs.")
@click.option("--json", "as_json", is_flag=True, help="The whole status as JSON.")
@addressed
def status(client: Client, *, as_json: bool) -> None:
    """Show what runs: listeners, generations, workers, the rollout under way."""
    seen = client.status()
    if as_json:
        print_json(seen)
    else:
        show.status(seen)


@click.command(short_help="Say who you are to the supervisor, and what you may do.")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
@addressed
def whoami(client: Client, *, as_json: bool) -> None:
    """Say who you are to the supervisor, by the kernel's word, and what you may do.

    Not what you say counts but whose process connects: its uid, gid and supplementary groups as of then. Root and the
    supervisor's own user are admin; everybody else has the role that the configuration gives to his uid or to one of
    his groups, or none. A group that you were added to counts from your next login.
    """
    me = client.whoami()
    if as_json:
        print_json(me)
    else:
        show.whoami(me)


@click.command(short_help="Have more or fewer workers.")
@click.argument("workers", metavar="N", type=click.IntRange(min=1, max=MOST_WORKERS))
@click.option("--json", "as_json", is_flag=True, help="The outcome as JSON.")
@addressed
def scale(client: Client, *, workers: int, as_json: bool) -> None:
    """Have N workers.

    More are started beside those that serve; fewer drain, the last ones first, and finish what they hold. Later
    generations have as many, until the service is stopped, or its supervisor started with another --workers.

    Returns when N workers serve and whoever is beyond takes nothing new (exit 0), or when a new one failed (exit 1; N
    are still wanted, and its slot is tried again), or when somebody asked for another number meanwhile (exit 5).
    Refused during a reload (exit 1). Ctrl-C only stops watching.

    The same by signal, one at a time: kill -TTIN adds a worker, kill -TTOU takes one.
    """
    scaling = client.scale(workers)
    board = show.Scaling(client.status().name, quiet=as_json)
    try:
        while True:
            board.update(scaling)
            if scaling.outcome is not None:
                break
            time.sleep(POLL)
            scaling = client.scaling(scaling.id)
    except KeyboardInterrupt:
        click.echo(f"\nnot watching any more; {workers} workers stay wanted: stillup status", err=True)
        sys.exit(130)
    if as_json:
        print_json(scaling)
    if scaling.outcome == "aborted":
        sys.exit(5 if scaling.reason == "superseded" else 1)


@click.group(short_help="The supervisor's own program.")
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
            click.echo(f"ok  pid {after.pid} runs stillup {after.version} (before: {before.version})")
            return
        time.sleep(POLL)
    leave(f"the supervisor (pid {before.pid}) did not answer within {REPLACED:g} s: see its log", 1)


@click.command(short_help="Stop the service.")
@addressed
def stop(client: Client) -> None:
    """Stop the service: finish what is under way, then end. Returns when the supervisor has ended.

    Where the supervisor has died and its workers serve on, they are ended in the same way.
    """
    try:
        client.stop()
    except NotRunningError:
        with orphans.orphans(client.directory) as left:
            if not left:
                raise
            click.echo(f"no supervisor runs in {client.directory}; ending the {len(left)} workers that it left")
            orphans.end(client.directory, left, show.leaving)
    click.echo("stopped")


@click.command(short_help="List the services here.")
@click.option("--json", "as_json", is_flag=True, help="The list as JSON.")
def ls(*, as_json: bool) -> None:
    """List the services of this user, and those of the host that let him in.

    Those whose supervisor has died and whose workers serve on are among them.
    """
    found = [service for place in every() if (service := _service(place)) is not None]
    if as_json:
        print_json(found)
    else:
        show.services(found)


def _service(place: str) -> show.Service | None:
    name = place.rpartition("/")[2]
    try:
        seen = Client(place, timeout=LOOK).status()
    except NotRunningError:
        with orphans.orphans(place) as left:
            if not left:
                return None
            return show.Service(name, "orphaned", place, None, len(left), [])
    except StillupError as error:
        return show.Service(name, f"unknown ({error})", place, None, 0, [])
    workers = sum(len(generation.workers) for generation in seen.generations)
    return show.Service(seen.name, seen.state, place, seen.pid, workers, [at.address for at in seen.listeners])
