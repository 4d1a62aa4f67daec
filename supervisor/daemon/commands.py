"""``stillup run`` and ``stillup check``."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from supervisor.daemon import config, main, preflight
from supervisor.errors import Refused, UsageError


def _settings(context: click.Context, given: dict[str, Any]) -> config.Settings:
    for name in config.unknown_variables(context.command):
        click.echo(f"stillup: warning: nothing reads the variable {name}", err=True)
    if line := preflight.clash():
        click.echo(f"stillup: warning: {line}", err=True)
    return config.make_settings(context, given)


class _Command(click.Command):
    """A command whose defaults may come from a file, and whose refusals are one line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            config.load_file(ctx, _config_flag(args))
        except UsageError as error:
            raise click.UsageError(str(error), ctx) from error
        return super().parse_args(ctx, args)


def _config_flag(args: list[str]) -> str | None:
    """The file must be known before click reads the rest, whose defaults it holds."""
    for index, arg in enumerate(args):
        if arg == "--":
            break
        if arg == "--config" and index + 1 < len(args):
            return args[index + 1]
        if arg.startswith("--config="):
            return arg.partition("=")[2]
    return os.environ.get("STILLUP_CONFIG")


@click.command(
    cls=_Command, params=config.parameters(), short_help="Serve an app, and reload it without losing a request."
)
@click.pass_context
def run(context: click.Context, /, **given: Any) -> None:
    """Serve APP (MODULE:ATTRIBUTE), and reload it without losing a request.

    Signals: HUP reloads; TERM, INT and QUIT stop (a second one hurries); TTIN and TTOU add and take a worker; USR2
    puts the stillup that is installed now in the place of this one.

    Every option can also stand in stillup.toml (or under [tool.stillup] in pyproject.toml) by its name without the
    dashes, or in the environment as STILLUP_NAME; uvicorn's own also as UVICORN_NAME.
    """
    try:
        sys.exit(main.run(_settings(context, given)))
    except UsageError as error:
        raise click.UsageError(str(error), context) from error
    except Refused as error:
        click.echo(f"stillup: {error}", err=True)
        sys.exit(1)


@click.command(
    cls=_Command, params=config.parameters(), short_help="Say whether 'run' with the same words could start."
)
@click.pass_context
def check(context: click.Context, /, **given: Any) -> None:
    """Say whether 'stillup run' with the same words could start: options, files, users, and whether APP loads."""
    try:
        settings = _settings(context, given)
        loaded = preflight.check(settings)
    except UsageError as error:
        raise click.UsageError(str(error), context) from error
    except Refused as error:
        click.echo(f"stillup: {error}", err=True)
        sys.exit(1)
    where = ", ".join(str(bind.address) for bind in settings.binds)
    click.echo(f"ok  {settings.name}: {settings.app} on {where}, {settings.workers} worker(s)")
    if not loaded:
        click.echo(f"    {settings.app} was not loaded: it has an interpreter of its own (--python)")
