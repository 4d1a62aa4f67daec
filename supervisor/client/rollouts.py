"""``stillup reload``, ``rollback`` and ``abort``: a rollout is begun, watched, called off."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import click
import msgspec

from supervisor.client import show
from supervisor.client.command import addressed, print_json
from supervisor.client.http import Client
from supervisor.wire.control import RolloutView

POLL = 0.1
"""Seconds between two looks at a rollout."""
CROSSING = 0.5
"""Seconds after a cut-over that connections are given to cross before a rollout is summed up."""


def _watched(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that begins a rollout --wait and --json."""
    far = click.Choice(["cut-over", "drained", "none"])
    wait = click.option("--wait", type=far, default="cut-over", show_default=True)
    return wait(
        click.option("--json", "as_json", is_flag=True, help="The rollout as JSON, when it is settled.")(command)
    )


@click.command(short_help="Put a new generation into service.")
@addressed
@_watched
def reload(client: Client, *, wait: str, as_json: bool) -> None:
    """Boot a new generation beside the old one and put it into service.

    Returns when the new generation serves (exit 0) or was rejected (exit 1; the old one never stopped serving).
    If its workers crash soon after that, the release before is put back into service; whoever still watches is told
    (exit 1). Ctrl-C only stops watching.
    """
    _watch(client, "reload", client.reload, wait, as_json=as_json)


@click.command(short_help="Put the release before back into service.")
@addressed
@_watched
def rollback(client: Client, *, wait: str, as_json: bool) -> None:
    """Boot the release that served before this one and put it back into service, as a reload does.

    Returns when it serves (exit 0) or was rejected (exit 1; what serves now never stopped). Asked again it goes further
    back. Refused when there is no release before, or when it was changed in place: keep each release in a directory of
    its own, behind a symlink (--directory current). Ctrl-C only stops watching.
    """
    _watch(client, "rollback", client.rollback, wait, as_json=as_json)


@click.command(short_help="Call off the rollout that is under way.")
@click.option("--json", "as_json", is_flag=True, help="The rollout as JSON.")
@addressed
def abort(client: Client, *, as_json: bool) -> None:
    """Call off the rollout that is under way, while it is before its cut-over: what serves never stopped serving.

    Whoever waits for that rollout is told (exit 1 there). After the cut-over there is nothing to call off: 'stillup
    rollback' goes back. Exit 1 when no rollout is before its cut-over.
    """
    rollout = client.abort()
    if as_json:
        print_json(rollout)
    else:
        show.aborted(rollout)


def _watch(client: Client, what: str, ask: Callable[[], RolloutView], wait: str, *, as_json: bool) -> None:
    """Begin a rollout, show it, and exit as it ended."""
    rollout = ask()
    if wait == "none":
        click.echo(msgspec.json.encode(rollout).decode() if as_json else f"{what} {rollout.id} is accepted")
        return
    board = show.Rollout(client.status().name, quiet=as_json)
    try:
        rollout = _follow(client, rollout, board, drained=wait == "drained")
    except KeyboardInterrupt:
        click.echo(f"\nnot watching any more; the {what} goes on: stillup status (rollout {rollout.id})", err=True)
        sys.exit(130)
    if as_json:
        print_json(rollout)
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
