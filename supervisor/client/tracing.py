"""``stillup trace``: the messages on the two sockets, as they come."""

from __future__ import annotations

import time
from typing import Any, Final

import click

from supervisor.client.command import addressed, leave
from supervisor.client.http import Client
from supervisor.wire import trace as wire
from supervisor.wire.trace import TraceGap, TraceLine

_NOTHING: Final[tuple[object, ...]] = ("", None, {}, [])
_ARROWS = {"in": "->", "out": "<-"}


@click.command(short_help="Show every message on the sockets, as it comes.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line, as the supervisor says it.")
@addressed
def trace(client: Client, *, as_json: bool) -> None:
    """Show every message on control.sock and handoff.sock as it comes, until Ctrl-C: Unix sockets have no tcpdump.

    Each line says when, which socket, which way (-> to the supervisor, <- from it), who is at the other end (a worker
    by its name), what it is, and how many bytes; under it each descriptor that went with it. Secrets are not shown:
    no nonces, no options of the app, no headers.

    Needs the role 'admin'. It never slows the service: who reads too slowly is told how many messages he missed.
    """
    stream = client.trace()
    try:
        with stream:
            for line in stream:
                click.echo(wire.encode(line).decode().rstrip() if as_json else _shown(line))
    except KeyboardInterrupt:
        return
    leave("the trace is over: the supervisor ends, or its program is being replaced", 1)


def _shown(line: TraceLine) -> str:
    if isinstance(line, TraceGap):
        return f"... {line.missed} messages are not shown: too slow"
    when = f"{time.strftime('%H:%M:%S', time.localtime(line.time))}.{int(line.time % 1 * 1000):03}"
    who = f"{line.worker or '-':<6} pid {line.pid:<8} uid {line.uid:<6}"
    size = f"{line.size} B" if line.size is not None else "stream"
    if line.socket == "control":
        words = " ".join(str(value) for value in line.fields.values())
    else:
        words = " ".join(
            [line.type, *(f"{name}={_short(value)}" for name, value in line.fields.items() if value not in _NOTHING)]
        )
    head = f"{when} {line.socket:<7} {_ARROWS[line.direction]} {who} {words}  ({size})"
    return "\n".join([head, *(f"{'':>16}+ {descriptor}" for descriptor in line.descriptors)])


def _short(value: Any) -> str:
    return str(value).replace("'", "").replace(" ", "")
