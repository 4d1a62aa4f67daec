"""``stillup trace``: the messages on the two sockets, as they come."""

from __future__ import annotations

import time
from typing import Any, Final

import click

from stillup.client.command_base import FAILED, addressed, json_option, leave, say_which
from stillup.client.control_client import Client
from stillup.client.plain_output import echo, echo_json, is_unread, until_unread
from stillup.core.amounts import amount
from stillup.wire import trace_messages as wire
from stillup.wire.trace_messages import TraceGap, TraceLine

_NOTHING: Final[tuple[object, ...]] = ("", None, {}, [])
_ARROWS = {"in": "->", "out": "<-"}


@click.command
@json_option("A JSON object a line, as the supervisor says it.")
@addressed
def trace(client: Client, *, as_json: bool) -> None:
    """Show every message on control.sock and handoff.sock as it comes, until Ctrl-C: Unix sockets have no tcpdump.

    Each line says when, which socket, which way (-> to the supervisor, <- from it), who is at the other end (a worker
    by its name), what it is, and how many bytes; under it each descriptor that went with it. Secrets are not shown:
    no nonces, no options of the app, no headers.

    Needs the role 'admin'. It never slows the service: a reader that is too slow is told how many messages it missed.
    """
    stream = client.trace()
    if not as_json:
        say_which(client)
    try:
        with stream, until_unread():
            for line in stream:
                if as_json:
                    echo_json(wire.encode(line).decode().rstrip())
                else:
                    for shown in _shown(line):
                        echo(shown)
                if is_unread():
                    return
    except KeyboardInterrupt:
        return
    if is_unread():
        return
    leave("the trace is over: the supervisor ends, or its program is being replaced", FAILED)


def _shown(line: TraceLine) -> list[str]:
    if isinstance(line, TraceGap):
        return [f"... {amount(line.missed, 'message is', 'messages are')} not shown: too slow"]
    when = _when(line.time)
    who = f"{line.worker or '-':<6} pid {line.pid:<8} uid {line.uid:<6}"
    size = f"{line.size} B" if line.size is not None else "stream"
    if line.socket == "control":
        words = " ".join(str(value) for value in line.fields.values())
    else:
        words = " ".join(
            [line.type, *(f"{name}={_short(value)}" for name, value in line.fields.items() if value not in _NOTHING)]
        )
    head = f"{when} {line.socket:<7} {_ARROWS.get(line.direction, '--')} {who} {words}  ({size})"
    return [head, *(f"{'':>16}+ {descriptor}" for descriptor in line.descriptors)]


def _when(seconds: float) -> str:
    try:
        return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{int(seconds % 1 * 1000):03}"
    except (OverflowError, OSError):  # no time that there is
        return "--:--:--.---"


def _short(value: Any) -> str:
    return str(value).replace("'", "").replace(" ", "")
