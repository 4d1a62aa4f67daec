"""``stillup cordon``, ``uncordon`` and ``stop``: how a service leaves."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from stillup.client import text_output
from stillup.client.client_errors import NotRunningError, ProblemError
from stillup.client.command_base import FAILED, addressed, json_option, leave, print_answer, service_name, watching
from stillup.client.control_client import Client
from stillup.client.plain_output import echo
from stillup.client.unit_facts import socket_units
from stillup.core.amounts import amount
from stillup.errors import StillupError
from stillup.wire.api_shapes import Status
from stillup.wire.manager_unit import is_stop_command, stop_command
from stillup.wire.waiting_line import waiting_line

FIRST: Final = 1.5
"""Seconds until it is said who is waited for: most stops are over by then."""
EVERY: Final = 3.0
"""Seconds between two such lines."""
STOPPING: Final = frozenset({"stop-delay", "stopping"})


@click.command
@json_option("The answer as JSON.")
@addressed
def cordon(client: Client, *, as_json: bool) -> None:
    """Have no new clients sent here, and serve on: for a balancer to take this host out before it stops.

    /readyz fails (503 'cordoned', or as --cordon-status says), /livez does not; answers say 'Connection: close', so
    that clients with kept connections go elsewhere, too. New connections are accepted, and the app is told nothing.
    Reloads go on. It lasts over a kill and a replacement of the supervisor, until 'stillup uncordon', or a stop and a
    start.

    Twice is as good as once (exit 0; the JSON says "changed": false). A stop that follows is final: under systemd
    nothing is kept for the next start.
    """
    answer = client.cordon()
    status = client.status()
    # Of another host's units nothing is known here.
    units = socket_units(status.stop_command) if answer.sockets and not as_json and client.remote is None else ()
    print_answer(answer, lambda answer: text_output.cordoned(answer, status.name, units), as_json=as_json)


@click.command
@json_option("The answer as JSON.")
@addressed
def uncordon(client: Client, *, as_json: bool) -> None:
    """Have clients sent here again, after 'stillup cordon'."""
    print_answer(client.uncordon(), lambda answer: text_output.cordoned(answer, service_name(client)), as_json=as_json)


@click.command
@click.option("--now", is_flag=True, help="End what is under way, and skip --stop-delay. A second one kills.")
@click.option("--force", is_flag=True, help="Also where a service manager would start it again.")
@addressed
def stop(client: Client, *, now: bool, force: bool) -> None:
    """Stop the service: finish what is under way, then end. Returns when the supervisor has ended.

    Says every few seconds who is waited for; Ctrl-C only stops watching. Where the supervisor has died and its workers
    serve on, they are ended in the same way.

    Refused where a service manager runs the service (exit 1): it would start it again. The message names the manager's
    own command; what that itself runs, such as ExecStop= of the unit, is not refused.
    """
    name = service_name(client)
    try:
        if not force:
            _refuse_if_managed(client, name)
        with watching("it stops all the same: stillup status"), _saying_who_is_waited_for(client):
            client.stop(now=now)
    except NotRunningError:
        if client.remote is not None or not _end_orphans(client.directory, now=now):
            raise
    echo(f"{name}  stopped")


def _refuse_if_managed(client: Client, name: str) -> None:
    try:
        command = client.status().stop_command
    except ProblemError:  # who may not look may not stop, either, and is told so of that
        return
    if command and command != own_stop_command():
        way = f"'{command}' stops it" if is_stop_command(command) else "stop it by its own command"  # not what was said
        leave(f"{name} is run by a service manager, which may start it again: {way}, or --force", FAILED)


def own_stop_command() -> str:
    """The command that stops the unit whose part this very process is; empty if it is none's."""
    with contextlib.suppress(OSError):
        return stop_command(Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="replace"))
    return ""


@contextlib.contextmanager
def _saying_who_is_waited_for(client: Client) -> Iterator[None]:
    """While it lasts, say every few seconds what the supervisor waits for."""
    enough = threading.Event()
    teller = threading.Thread(target=_say, args=(client, enough), daemon=True)
    teller.start()
    try:
        yield
    finally:
        enough.set()
    teller.join()


def _say(client: Client, enough: threading.Event) -> None:
    pause = FIRST
    while not enough.wait(pause):
        pause = EVERY
        try:
            seen = client.within(EVERY).status()
        except StillupError:  # it has ended, or is busy with that
            continue
        if seen.state in STOPPING and not enough.is_set():
            echo(f"  {_waits(seen)}; 'stillup stop --now' hurries")


def _waits(seen: Status) -> str:
    """What a stop waits for: the end of its delay, in which everything is served, or else the workers."""
    if seen.state == "stop-delay":
        return f"stopping in {max(0.0, seen.stop_delay - (seen.cordoned_for or 0.0)):.0f} s, and serving until then"
    return waiting_line({worker.id: worker.classes for one in seen.generations for worker in one.workers}, None)


def _end_orphans(directory: str, *, now: bool) -> bool:
    """Have the workers leave that a dead supervisor has left there; whether there were any."""
    from stillup.client.orphans import end, orphans  # noqa: PLC0415 - 15 ms that are for a supervisor that has died

    with orphans(directory) as left:
        if left:
            echo(f"no supervisor runs in {directory}; ending the {amount(len(left), 'worker')} that it left")
            end(directory, left, text_output.leaving, now=now)
        return bool(left)
