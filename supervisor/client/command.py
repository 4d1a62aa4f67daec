"""What every command that talks to a supervisor has in common: whom it means, how it is refused, how it exits.

Exit codes: 0 done, 1 it did not happen (the old generation is kept), 2 usage, 3 not running, 4 denied, 5 superseded.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click
import msgspec

from supervisor.client import orphans
from supervisor.client.find import find
from supervisor.client.http import Client, NotRunningError, ProblemError
from supervisor.errors import StillupError, UsageError

DENIED = {"usage": 2, "not-permitted": 4, "superseded": 5}


def addressed(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --name and --runtime-dir, and its refusals one line and an exit code."""
    left = command.__name__ == "stop"

    @click.option("--name", help="The service's name.")
    @click.option("--runtime-dir", type=click.Path(readable=False), help="Where its control socket is.")
    @functools.wraps(command)
    def wrapped(name: str | None, runtime_dir: str | None, **rest: Any) -> None:
        try:
            command(Client(find(name, runtime_dir, left=left)), **rest)
        except UsageError as error:
            raise click.UsageError(str(error)) from error
        except NotRunningError as error:
            leave(f"{error}{_left_behind(error.directory)}", 3)
        except ProblemError as error:
            leave(str(error), DENIED.get(error.code, 1))
        except StillupError as error:
            leave(str(error), 1)

    return wrapped


def _left_behind(directory: str) -> str:
    if not directory:
        return ""
    with orphans.orphans(directory) as left:
        if not left:
            return ""
        return f"; {len(left)} workers serve on: 'stillup run' as before takes them over, 'stillup stop' ends them"


def leave(message: str, code: int) -> NoReturn:
    """Say why in one line, and exit."""
    click.echo(f"stillup: {message}", err=True)
    sys.exit(code)


def print_json(answer: object) -> None:
    """An answer as JSON for people and programs."""
    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
