"""What the commands that talk to a supervisor have in common: which service is meant, output, errors, exit codes.

Exit codes: 0 done, 1 it did not happen (the old generation is kept), 2 usage, 3 not running (``status``: or nothing
serves), 4 denied, 5 superseded, 130 interrupted. ``wire.problem_types`` has that of every type of problem.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn, TypeVar

import click
import msgspec

from stillup.client.client_errors import NOT_RUNNING, NotRunningError, ProblemError, problem_of
from stillup.client.control_client import Client
from stillup.client.plain_output import echo, echo_json, is_terminal
from stillup.client.service_lookup import Found, is_orphaned, listed, look_up, others
from stillup.core.amounts import amount
from stillup.errors import StillupError, UsageError
from stillup.wire.api_shapes import RolloutView, ScalingView
from stillup.wire.plain_text import quoted
from stillup.wire.problem_types import PROBLEM_TYPES

FAILED: Final = 1
SUPERSEDED: Final = PROBLEM_TYPES["superseded"].exit_code
INTERRUPTED: Final = 130
"""128 and the number of SIGINT, as shells have it."""

Command = Callable[..., None]
T = TypeVar("T")
_SERVICE: Final = "stillup.service"
"""The key of click's ``Context.meta`` under which the service is that was found; None if it is on another host."""
_NONE: Final = ""
"""For --remote: this host, whatever the environment says."""
LOOK: Final = 5.0
"""Seconds that a service may take to say how it is called."""


def service_options(command: Command) -> Command:
    """Give a command what says which service is meant: --name, --runtime-dir and --config."""
    for option in (
        click.option("--config", type=click.Path(), help="Have the name from this file, as 'stillup run --config'."),
        click.option("--runtime-dir", type=click.Path(readable=False), help="Where its control socket is."),
        click.option(
            "--name",
            help="The service's name. [default: as 'stillup run' would call it here]",
            shell_complete=lambda *asked: [name for name in others("") if name.startswith(asked[-1])],
        ),
    ):
        command = option(command)
    return command


def remote_option(command: Command) -> Command:
    """Give a command --remote."""
    return click.option(
        "-H",
        "--remote",
        metavar="ssh://[USER@]HOST[:PORT]",
        help="Of the service on that host, as USER there. [default: STILLUP_REMOTE, else this host]",
    )(command)


def addressed(command: Command) -> Command:
    """Give a command --name, --runtime-dir, --config and --remote; what goes wrong in it is an exit code and a line.

    The command's first argument is the Client. That of ``stop`` may also be of a service whose supervisor has died.
    """
    return remote_option(addressed_here(command))


def addressed_here(command: Command) -> Command:
    """The same without --remote."""
    stops = command.__name__ == "stop"

    @service_options
    @functools.wraps(command)
    def wrapped(
        name: str | None, runtime_dir: str | None, config: str | None, remote: str | None = _NONE, **rest: Any
    ) -> None:
        found: Found | None = None
        try:
            client = _elsewhere(remote, name, runtime_dir, config)
            if client is None:
                found = look_up(name, runtime_dir, config=config, or_orphaned=stops)
                client = Client(found.directory)
            click.get_current_context().meta[_SERVICE] = found
            command(client, **rest)
        except StillupError as error:
            if rest.get("as_json", False):
                echo_json(msgspec.json.encode(problem_of(error)).decode())  # a line: others may have come before
            if isinstance(error, UsageError):
                raise click.UsageError(str(error)) from error
            if isinstance(error, NotRunningError):
                leave(f"{error}{_left_behind(error.directory) or _run_instead(found, error)}", NOT_RUNNING)
            if isinstance(error, ProblemError):
                leave(str(error), exit_code(error.code), *([] if rest.get("as_json", False) else _help(error)))
            leave(str(error), FAILED)

    return wrapped


def refuse_elsewhere(remote: str | None, command: str) -> None:
    """Refuse --remote and STILLUP_REMOTE to a command that looks at the host it runs on.

    Raises:
        click.UsageError: another one is meant; the message says how.
    """
    try:
        client = _elsewhere(remote, None, None, None)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    if client is not None and client.remote is not None:
        message = f"'{command}' looks at the host that it runs on: {shlex.join(client.remote.command(command))}"
        raise click.UsageError(message)


def service_name(client: Client) -> str:
    """What the service is called that this command acts on, and on which host if not this; else where it is."""
    found: Found | None = click.get_current_context().meta[_SERVICE]
    if found is not None and found.name != found.directory:
        return found.name
    name = client.remote.name if client.remote is not None else ""
    with contextlib.suppress(StillupError):
        name = name or client.within(LOOK).status().name
    if client.remote is None:
        return name or client.directory
    return f"{name} {client.where}" if name else client.where


def say_which(client: Client) -> None:
    """Tell a person at a terminal which service's output follows; what reads it is spared the line."""
    if is_terminal():
        echo(f"{service_name(client)}:", err=True)


def json_option(what: str) -> Callable[[Command], Command]:
    """Give a command --json: its argument is ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help=what)


def print_answer(answer: T, show: Callable[[T], None], *, as_json: bool) -> None:
    """Print an answer as JSON, or for people by ``show``."""
    if as_json:
        print_json(answer)
    else:
        show(answer)


def print_json(answer: object) -> None:
    """Print an answer as indented JSON."""
    echo_json(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())


@contextlib.contextmanager
def watching(goes_on: str) -> Iterator[None]:
    """Watch something: Ctrl-C ends that alone, and says what goes on."""
    try:
        yield
    except KeyboardInterrupt:
        echo("", err=True)
        echo(f"not watching any more; {goes_on}", err=True)
        sys.exit(INTERRUPTED)


def exit_as(ended: RolloutView | ScalingView) -> None:
    """Exit if what was watched did not succeed."""
    if ended.outcome != "succeeded":
        sys.exit(SUPERSEDED if ended.reason == "superseded" else FAILED)


def exit_code(code: str) -> int:
    """The exit code for a type of problem; of one that a later supervisor may have, that of a failure."""
    return PROBLEM_TYPES[code].exit_code if code in PROBLEM_TYPES else FAILED


def leave(message: str, code: int, *more: str) -> NoReturn:
    """Print why on stderr, and what else there is to say in lines below it; and exit."""
    for line in (*quoted(f"stillup: {message}"), *more):
        echo(line, err=True)
    sys.exit(code)


def _help(error: ProblemError) -> list[str]:
    """For people, where the type of problem is explained."""
    return [f"  help: {error.problem.help}"] if error.problem.help else []


def _run_instead(found: Found | None, error: NotRunningError) -> str:
    """Who said which service is meant, and which ones run in its stead; empty where a directory was named."""
    if found is None or not error.directory or found.source in ("--runtime-dir", "STILLUP_RUNTIME_DIR"):
        return ""
    said = f" ('{found.name}' by {found.source})" if found.source and found.source != "--name" else ""
    if is_orphaned(error.directory):  # it is the one that is meant, and has died
        return said
    running = others(error.directory)
    return f"{said}; what runs is {listed(running)}: say so with --name" if running else said


def _elsewhere(remote: str | None, name: str | None, runtime_dir: str | None, config: str | None) -> Client | None:
    """The service on another host that is meant; None if it is one of this."""
    if remote == _NONE or (remote is None and not os.environ.get("STILLUP_REMOTE")):
        return None
    from stillup.client import remote_host  # noqa: PLC0415 - 10 ms that are for other hosts

    host = remote_host.chosen(remote, os.environ)
    if host is None:
        return None
    return Client("", remote=remote_host.service_there(host, name, runtime_dir, config, os.environ))


def _left_behind(directory: str) -> str:
    if not directory:
        return ""
    from stillup.client.orphans import orphans  # noqa: PLC0415 - 15 ms that are for a supervisor that has died

    with orphans(directory) as left:
        if not left:
            return ""
        serve = amount(len(left), "worker serves", "workers serve")
        them = "it" if len(left) == 1 else "them"
        return f"; {serve} on: 'stillup run' as before takes {them} over, 'stillup stop' ends {them}"
