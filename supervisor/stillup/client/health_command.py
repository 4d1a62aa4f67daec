"""``stillup health``: whether the service serves, as an exit code for Docker's HEALTHCHECK and its like."""

from __future__ import annotations

import sys
from typing import Any, Final

import click

from stillup.client.client_errors import ProblemError
from stillup.client.command_base import FAILED, addressed, leave, service_name
from stillup.client.control_client import Client
from stillup.client.plain_output import echo

PATIENCE: Final = 5.0
"""Seconds that the supervisor may take to answer."""


class _ZeroOrOne(click.Command):
    """A command that exits 0 or 1: Docker reserves the other codes."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except click.ClickException as error:
            error.exit_code = FAILED  # type: ignore[misc]
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.exit_code = FAILED  # type: ignore[misc]
            raise
        except SystemExit as ends:
            sys.exit(FAILED if ends.code else 0)


@click.command(cls=_ZeroOrOne)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1, max=3600),
    default=PATIENCE,
    show_default=True,
    metavar="SECONDS",
    help="Not healthy if there is no answer by then.",
)
@click.option("--ready", is_flag=True, help="Exit 1 under a cordon, too, as /readyz says: for a readiness probe.")
@addressed
def health(client: Client, *, timeout: float, ready: bool) -> None:
    """Exit 0 if the service serves, else 1; nothing else, also where none runs or these words mean nothing.

    For images without curl:

    \b
      HEALTHCHECK --start-period=60s CMD ["stillup", "health"]

    A service that is cordoned, or whose stop is announced, serves: what restarts a container that is not healthy would
    cut what it is to finish. With --ready it is what /readyz says, for a probe that decides who is sent requests.

    It finds the service as 'stillup run' in the same directory with the same environment would call it, and needs the
    role of a viewer, which the supervisor's own user and root have.
    """  # noqa: D301 - to click it is the character
    try:
        if not client.within(timeout).ready().ready:
            leave("it is not ready", FAILED)
    except ProblemError as error:
        if ready or error.code != "cordoned":
            raise
        echo(f"{service_name(client)} serves, and is cordoned")
        return
    echo(f"{service_name(client)} serves")
