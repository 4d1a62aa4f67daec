"""``stillup status``, ``reload``, ``scale`` and ``stop``: what they say, and how they exit.

Exit codes: 0 done, 1 it did not happen (the old generation is kept), 2 usage, 3 not running, 4 denied, 5 superseded.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import click
import msgspec

from supervisor.client import orphans, show
from supervisor.client.find import every, find
from supervisor.client.http import Client, NotRunningError, ProblemError
from supervisor.core.scaling import MOST_WORKERS
from supervisor.errors import StillupError, UsageError
from supervisor.wire.control import RolloutView

DENIED = {"usage": 2, "not-permitted": 4, "superseded": 5}
POLL = 0.1
"""Seconds between two looks at a rollout or a scaling."""
REPLACED = 30.0
"""Seconds for a supervisor to answer after it was told to replace its program."""
CROSSING = 0.5
"""Seconds after a cut-over that connections are given to cross before a reload is summed up."""


def _addressed(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --name and --runtime-dir, and its refusals one line and an exit code."""
    left = command.__name__ == "stop"

    @click.option("--name", help="The service's name.")
    @click.option("--runtime-dir", type=click.Path(), help="Where its control socket is.")
    @functools.wraps(command)
    def wrapped(name: str | None, runtime_dir: str | None, **rest: Any) -> None:
        try:
            command(Client(find(name, runtime_dir, left=left)), **rest)
        except UsageError as error:
            raise click.UsageError(str(error)) from error
        except NotRunningError as error:
            _leave(f"{error}{_left_behind(error.directory)}", 3)
        except ProblemError as error:
            _leave(str(error), DENIED.get(error.code, 1))
        except StillupError as error:
            _leave(str(error), 1)

    return wrapped


def _left_behind(directory: str) -> str:
    if not directory:
        return ""
    with orphans.orphans(directory) as left:
        if not left:
            return ""
        return f"; {len(left)} workers serve on: 'stillup run' as before takes them over, 'stillup stop' ends them"


def _leave(message: str, code: int) -> NoReturn:
    click.echo(f"stillup: {message}", err=True)
    sys.exit(code)


@click.command(short_help="Show what runs.")
@click.option("--json", "as_json", is_flag=True, help="The whole status as JSON.")
@_addressed
def status(client: Client, *, as_json: bool) -> None:
    """Show what runs: listeners, generations, workers, the rollout under way."""
    seen = client.status()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(seen), indent=2).decode())
    else:
        show.status(seen)


@click.command(short_help="Put a new generation into service.")
@click.option("--wait", type=click.Choice(["cut-over", "drained", "none"]), default="cut-over", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The rollout as JSON, when it is settled.")
@_addressed
def reload(client: Client, *, wait: str, as_json: bool) -> None:
    """Boot a new generation beside the old one and put it into service.

    Returns when the new generation serves (exit 0) or was rejected (exit 1; the old one never stopped serving).
    If its workers crash soon after that, the release before is put back into service; whoever still watches is told
    (exit 1). Ctrl-C only stops watching.
    """
    name = client.status().name
    rollout = client.reload()
    if wait == "none":
        click.echo(msgspec.json.encode(rollout).decode() if as_json else f"reload {rollout.id} is accepted")
        return
    board = show.Rollout(name, quiet=as_json)
    try:
        rollout = _follow(client, rollout, board, drained=wait == "drained")
    except KeyboardInterrupt:
        click.echo(f"\nnot watching any more; the reload goes on: stillup status (rollout {rollout.id})", err=True)
        sys.exit(130)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rollout), indent=2).decode())
    if rollout.outcome != "succeeded":
        sys.exit(5 if rollout.reason == "superseded" else 1)


def _follow(client: Client, rollout: RolloutView, board: show.Rollout, *, drained: bool) -> RolloutView:
    settled: float | None = None
    while True:
        now = time.monotonic()
        if settled is None and rollout.outcome is not None:
            settled = now
        # Most connections cross at once: a moment later there is more to tell, and most often all.
        told = settled is not None and not drained and now - settled >= CROSSING
        board.update(rollout, told=told)
        if rollout.outcome in ("aborted", "rolled-back") or rollout.state == "done" or told:
            return rollout
        time.sleep(POLL)
        rollout = client.rollout(rollout.id)


@click.command(short_help="Have more or fewer workers.")
@click.argument("workers", metavar="N", type=click.IntRange(min=1, max=MOST_WORKERS))
@click.option("--json", "as_json", is_flag=True, help="The outcome as JSON.")
@_addressed
def scale(client: Client, *, workers: int, as_json: bool) -> None:
    """Have N workers.

    More are started beside those that serve; fewer drain, the last ones first, and finish what they hold. Later
    generations have as many, until the supervisor is started again: then --workers counts.

    Returns when N workers serve and whoever is beyond takes nothing new (exit 0), or when a new one failed (exit 1; N
    are still wanted, and its slot is tried again), or when somebody asked for another number meanwhile (exit 5).
    Refused during a reload (exit 1). Ctrl-C only stops watching.

    The same by signal, one at a time: kill -TTIN adds a worker, kill -TTOU takes one.
    """
    name = client.status().name
    scaling = client.scale(workers)
    board = show.Scaling(name, quiet=as_json)
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
        click.echo(msgspec.json.format(msgspec.json.encode(scaling), indent=2).decode())
    if scaling.outcome == "aborted":
        sys.exit(5 if scaling.reason == "superseded" else 1)


@click.group(short_help="The supervisor's own program.")
def supervisor() -> None:
    """What concerns the supervisor's own program, not the app's."""


@supervisor.command(short_help="Put the stillup that is installed now in the place of the one that runs.")
@_addressed
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
    _leave(f"the supervisor (pid {before.pid}) did not answer within {REPLACED:g} s: see its log", 1)


@click.command(short_help="Stop the service.")
@_addressed
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


@click.command(short_help="List the services of this user.")
@click.option("--json", "as_json", is_flag=True, help="The list as JSON.")
def ls(*, as_json: bool) -> None:
    """List the services of this user, those whose supervisor has died and whose workers serve on, too."""
    found = [service for place in every() if (service := _service(place)) is not None]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        show.services(found)


def _service(place: str) -> show.Service | None:
    name = place.rpartition("/")[2]
    try:
        seen = Client(place).status()
    except NotRunningError:
        with orphans.orphans(place) as left:
            if not left:
                return None
            return show.Service(name, "orphaned", place, None, len(left), [])
    except StillupError as error:
        return show.Service(name, f"unknown ({error})", place, None, 0, [])
    workers = sum(len(generation.workers) for generation in seen.generations)
    return show.Service(seen.name, seen.state, place, seen.pid, workers, [at.address for at in seen.listeners])
