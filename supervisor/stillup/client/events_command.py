"""``stillup events``: what has happened, and what happens, from one supervisor to the next."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

import click

from stillup.client.client_errors import NotRunningError, TimedOutError, UnreachableError
from stillup.client.command_base import INTERRUPTED, addressed, json_option, say_which
from stillup.client.control_client import Client
from stillup.client.line_stream import Stream
from stillup.client.plain_output import echo, echo_json, is_unread, until_unread
from stillup.wire import event_encoding
from stillup.wire.event_encoding import AnyEvent

_OF_CALLERS: Final = ("request.audited", "requests.denied")
PAUSE: Final = 0.2
"""Seconds between two attempts to find the next supervisor."""


@click.command
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens, from one supervisor to the next.")
@click.option("--since", type=click.IntRange(min=0), metavar="N", help="Only events with a number above N.")
@json_option("Each event as a line of JSON.")
@addressed
def events(client: Client, *, follow: bool, since: int | None, as_json: bool) -> None:
    """Show what has happened, each event with its number: reloads, workers that died, who asked for what.

    With --follow it ends when the service has stopped, or with Ctrl-C (exit 130). A supervisor that is killed, or
    replaces its program, is waited for, or the next one: no event is missed or shown twice.
    """

    def gone() -> None:
        echo(f"no supervisor answers {client.where}: waiting for the next one", err=True)

    if not as_json:
        say_which(client)
    try:
        with until_unread() if follow else contextlib.nullcontext():
            for event, line in lines(client, since, follow=follow, gone=gone):
                if as_json:
                    echo_json(line.decode())
                else:
                    echo(_shown(event))
                if is_unread():
                    break
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if follow and not is_unread():
        echo("the service has stopped", err=True)


def lines(
    client: Client, since: int | None, *, follow: bool, gone: Callable[[], None]
) -> Iterator[tuple[AnyEvent, bytes]]:
    """Events as far as all are alike, each with its line as it came.

    With ``follow`` those to come, too, until the service has stopped: a supervisor that goes meanwhile is waited for,
    or the one after it. ``gone`` is called when there is none.

    Raises:
        NotRunningError: there is no supervisor to begin with, or without ``follow`` it ended before it had told all.
        StillupError: as any method of Client.
    """
    answer = client.event_lines(since, follow=follow)
    last = ""
    while True:
        before = since
        try:
            with answer:
                for line in answer:
                    event = event_encoding.parse(line)
                    since = event.seq
                    # A request may be turned down after the stop; any other event after it is of the next supervisor.
                    last = last if event.kind in _OF_CALLERS else event.kind
                    yield event, line
        except NotRunningError:
            if not follow:
                raise
        if not follow or last == "service.stopped":
            return
        if since == before:  # who says nothing and hangs up is not asked without a pause
            time.sleep(PAUSE)
        answer = _again(client, since, gone)


def _again(client: Client, since: int | None, gone: Callable[[], None]) -> Stream[bytes]:
    """Wait for a supervisor that tells what happened since."""
    alone = False
    while True:
        try:
            return client.event_lines(since, follow=True)
        except (NotRunningError, TimedOutError, UnreachableError):
            if not alone:
                alone = True
                gone()
            time.sleep(PAUSE)


def _shown(event: AnyEvent) -> str:
    """An event for people: its number, the local time, what happened."""
    at = event.at
    with contextlib.suppress(OverflowError):  # in the year 1, or in 9999
        at = at.astimezone()
    return f"{event.seq:>6}  {at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03}  {event.text}"
