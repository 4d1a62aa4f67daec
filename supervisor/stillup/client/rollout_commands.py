"""``stillup reload``, ``rollback``, ``promote`` and ``abort``: begin a rollout, watch it, pass it, call it off."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import click
import msgspec

from stillup.client import outcome_output, text_output
from stillup.client.command_base import (
    FAILED,
    SUPERSEDED,
    Command,
    addressed,
    exit_as,
    json_option,
    print_answer,
    print_json,
    service_name,
    watching,
)
from stillup.client.control_client import Client
from stillup.client.plain_output import Printer, echo, echo_json
from stillup.client.progress_output import RolloutProgress, has_failed_probation
from stillup.client.watch_limit import WatchLimit, timeout_option, wait_option
from stillup.core.policy import MOST_WORKERS
from stillup.core.strategy import MOST_STANDBY, StrategyKind
from stillup.core.strategy_choice import canary_of
from stillup.wire.api_shapes import RolloutView

_COUNT: Final = click.IntRange(0, MOST_WORKERS)
POLL: Final = 0.1
"""Seconds between two looks at a rollout."""
CROSSING: Final = 0.5
"""Seconds after a cut-over that connections are given to move before a rollout is summed up."""
LAST_CROSSING: Final = 3.0
"""Such seconds at most where idle ones seem to be left: one that drains reports once a second, and may be late."""


def _watched(command: Command) -> Command:
    """Give a command that begins a rollout --wait, --timeout and --json."""
    wait = wait_option("none", "cut-over", "probation", "drained")
    return wait(timeout_option()(json_option("The rollout as JSON, when it is settled.")(command)))


@click.command
@addressed
@click.option(
    "--if-changed",
    is_flag=True,
    help="Do nothing (exit 0) if what serves is what would come: code, options, environment, interpreter.",
)
@click.option("--force", is_flag=True, help="Also run a release that was rolled back before, and is what it was.")
@click.option("--hurry", is_flag=True, help="End what streams in older generations that still drain, at once.")
@click.option(
    "--strategy",
    type=click.Choice([kind.value for kind in StrategyKind]),
    help="How it comes, this once: all workers beside the old ones, some at a time, or a few that are watched first. "
    "[default: as configured]",
)
@click.option(
    "--max-surge", type=_COUNT, metavar="N", help="Of rolling: so many more workers may live. [default: as configured]"
)
@click.option(
    "--max-unavailable",
    type=_COUNT,
    metavar="N",
    help="Of rolling: so many fewer workers may serve. [default: as configured]",
)
@click.option(
    "--standby",
    type=click.IntRange(0, MOST_STANDBY),
    metavar="SECONDS",
    help="Keep the old workers paused for so long: a rollback has them serve at once. [default: as configured]",
)
@click.option("--canary", metavar="N|N%", help="Of canary: so many are watched. [default: as configured]")
@click.option("--canary-time", type=float, metavar="SECONDS", help="Of canary: for that long. [default: as configured]")
@click.option(
    "--canary-timeout",
    type=float,
    metavar="SECONDS",
    help="Of canary: it goes back if it cannot be told by then. [default: as configured]",
)
@click.option(
    "--min-requests",
    type=click.IntRange(1),
    metavar="N",
    help="Of canary: so many requests each side has to have answered. [default: as configured]",
)
@click.option(
    "--no-gate", "gated", flag_value=False, default=None, help="Of canary: only see whether they live for that long."
)
@_watched
def reload(client: Client, *, wait: str, timeout: float | None, as_json: bool, canary: str | None, **said: Any) -> None:
    """Boot a new generation beside the old one and put it into service.

    Returns when the new generation serves (exit 0) or was rejected (exit 1; what served goes on).
    If its workers crash soon after that (--probation of 'run'), the release before is put back into service: a command
    that still watches, as with --wait probation, says so (exit 1), and a reload to the release that crashed is refused
    until that is changed, or --force is given. Exit 5 when a later request took this one's place. Ctrl-C and --timeout
    (exit 6) only stop watching. With --strategy rolling the new workers come some at a time, and one that fails has
    those that serve already leave and the old ones come back in the same way, which --wait drained watches, too.
    With --strategy canary a few come, and are compared with the old ones for --canary-time. If they do worse (gate) or
    it cannot be told until --canary-timeout (inconclusive), they leave: exit 1. 'stillup promote' ends that wait.
    With --if-changed it may be asked again and again; the JSON says "changed": false where nothing was to be done.
    """
    if canary is not None:
        said["canary"], said["canary_percent"] = canary_of(canary)
    _watch(client, "reload", partial(client.reload, **said), wait, timeout, as_json=as_json)


@click.command
@addressed
@click.option(
    "--to",
    type=click.IntRange(1),
    metavar="GEN",
    help="The generation whose release it is to be ('stillup history'); nothing is done if that serves. "
    "[default: the one before]",
)
@_watched
def rollback(client: Client, *, to: int | None, wait: str, timeout: float | None, as_json: bool) -> None:
    """Boot the release that served before this one and put it back into service, as a reload does.

    While its workers stand by (--standby of 'run' and 'reload') nothing boots: they serve again at once.
    Returns when it serves (exit 0) or was rejected (exit 1; what serves now goes on). Asked again it goes further back.
    Refused when there is no release before, or when it was changed in place, or removed: keep each release in a
    directory of its own, behind a symlink (--directory current). What was rolled back to stays, also if it crashes:
    --wait probation says so (exit 1). Ctrl-C and --timeout (exit 6) only stop watching.
    """
    _watch(client, "rollback", partial(client.rollback, to=to), wait, timeout, as_json=as_json)


@click.command
@json_option("The list as JSON.")
@addressed
def history(client: Client, *, as_json: bool) -> None:
    """List the generations since the service was started, the newest first: what each ran, and what came of it.

    'stillup rollback --to GEN' puts what one of them ran back into service, if its code is as it was. The last 32
    rollouts are known, and the releases of those before the last few as long as the supervisor lives.
    """
    print_answer(client.history(), outcome_output.print_history, as_json=as_json)


@click.command
@addressed
@_watched
def promote(client: Client, *, wait: str, timeout: float | None, as_json: bool) -> None:
    """Pass the canary that is watched, whatever its figures are: the rest of its generation comes.

    Returns when that serves (exit 0) or was rejected (exit 1; what served goes on). Exit 1 when no canary is watched.
    """
    _watch(client, "promote", client.promote, wait, timeout, as_json=as_json)


@click.command
@json_option("The rollout as JSON.")
@addressed
def abort(client: Client, *, as_json: bool) -> None:
    """Call off the rollout that is under way, while it is before its cut-over: what served goes on.

    In a rolling rollout the new workers that serve already leave, and the old ones come back, one after another; a
    canary leaves. A command that waits for that rollout ends with exit 1. After the cut-over there is nothing to call
    off: 'stillup rollback' goes back. Exit 1 when no rollout is before its cut-over.
    """
    print_answer(client.abort(), lambda rollout: text_output.aborted(rollout, service_name(client)), as_json=as_json)


def _watch(
    client: Client, what: str, ask: Callable[[], RolloutView], wait: str, timeout: float | None, *, as_json: bool
) -> None:
    """Begin a rollout, show it, and exit as it ended."""
    limit = WatchLimit(timeout)
    rollout = ask()
    changed = rollout.changed
    if not changed and rollout.outcome is not None:
        _nothing_to_do(client, rollout, as_json=as_json)
        return
    if wait == "none":
        if as_json:
            echo_json(msgspec.json.encode(rollout).decode())
        else:
            echo(f"{service_name(client)}  {what} {rollout.id} is accepted")
        return
    goes_on = f"the {what} goes on: stillup status (rollout {rollout.id})"
    progress = RolloutProgress(client.status().name, quiet=as_json)
    with watching(goes_on):
        rollout = msgspec.structs.replace(_follow(client, rollout, progress, limit, wait), changed=changed)
    if as_json:
        print_json(rollout)
    limit.exit_if_it_came(goes_on)
    exit_as(rollout)
    if wait == "probation" and has_failed_probation(rollout):
        sys.exit(FAILED if rollout.reason or rollout.stopped else SUPERSEDED)


def _nothing_to_do(client: Client, rollout: RolloutView, *, as_json: bool) -> None:
    if as_json:
        print_json(rollout)
    else:
        what = f"{service_name(client)} gen {rollout.generation} is {rollout.release} as it is now; nothing changed"
        text_output.print_verdict(Printer(), "ok", what)


def _follow(
    client: Client, rollout: RolloutView, progress: RolloutProgress, limit: WatchLimit, wait: str
) -> RolloutView:
    settled: float | None = None
    while True:
        now = time.monotonic()
        if settled is None and rollout.outcome is not None:
            settled = now
        # Most connections cross at once: a moment later there is more to tell, and most often all.
        patience = LAST_CROSSING if rollout.drains.get("idle") else CROSSING
        crossed = settled is not None and (rollout.state == "done" or now - settled >= patience)
        over = {
            "cut-over": crossed,
            "probation": crossed and rollout.probation_left is None,
            "drained": rollout.state == "done",
        }[wait]
        goes_back = rollout.step is not None and wait == "drained"
        failed = rollout.outcome in ("aborted", "rolled-back") and not goes_back
        progress.update(rollout, wait=wait, over=over)
        if failed or over or limit.has_come():
            return rollout
        time.sleep(POLL)
        rollout = client.rollout(rollout.id)
