"""``stillup run`` and ``stillup check``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from stillup.core.worker_settings import probe_path
from stillup.daemon import main, preflight
from stillup.daemon.settings import config
from stillup.daemon.settings.config_reader import ConfigReader
from stillup.daemon.settings.options import parameters
from stillup.daemon.settings.run_parser import RunCommand, words_of
from stillup.errors import Refused, UsageError
from stillup.wire.plain_text import quoted


def _say(text: str, *, err: bool = False) -> None:
    """Print a message; a name, a path or an app's own words in it may hold anything, and are shown."""
    for line in quoted(text):
        click.echo(line, err=err)


def _settings(context: click.Context, given: dict[str, Any]) -> config.Settings:
    for name in config.unknown_variables(context.command):
        _say(f"stillup: warning: nothing reads the variable {name}", err=True)
    settings = config.make_settings(context, given)
    if doubt := config.doubt(context, settings):
        _say(f"stillup: warning: {doubt}", err=True)
    for unread in config.unread_of_gunicorn(context):
        _say(f"stillup: warning: {unread}", err=True)
    return settings


class _Run(RunCommand):
    """Exits with 2 for what is wrong with its words only where nothing serves, since its unit is not restarted then.

    Where workers of a supervisor that has died serve on, a start that is mended takes them over: it is to be tried
    again (exit 1). The unit's runtime directory says so.
    """

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _trying_again():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _trying_again():
            return super().invoke(ctx)


@contextlib.contextmanager
def _trying_again() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        directory = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        if directory and preflight.has_living_workers(directory):
            error.exit_code = 1  # type: ignore[misc]
        raise


@click.command(cls=_Run, params=parameters())
@click.pass_context
def run(context: click.Context, /, **given: Any) -> None:
    """Serve APP (MODULE:ATTRIBUTE), and reload it without losing a request.

    Signals: HUP reloads; TERM, INT and QUIT stop (a second one hurries); TTIN and TTOU add and take a worker; USR2
    puts the stillup that is installed now in the place of this one.

    Every option can also stand in stillup.toml (or under [tool.stillup] in pyproject.toml) by its name without the
    dashes, or in the environment as STILLUP_NAME; uvicorn's own also as UVICORN_NAME.
    """
    try:
        settings = _settings(context, given)
        sys.exit(main.run(settings, ConfigReader(context, words_of(context), settings)))
    except UsageError as error:
        raise click.UsageError(config.placed(context, str(error)), context) from error
    except Refused as error:
        _say(f"stillup: {config.placed(context, str(error))}", err=True)
        sys.exit(1)


@click.command(cls=RunCommand, params=parameters())
@click.pass_context
def check(context: click.Context, /, **given: Any) -> None:
    """Say whether 'stillup run' with the same words could start: options, files, users, and whether APP loads."""
    try:
        settings = _settings(context, given)
        preflight.check(settings)
    except UsageError as error:
        raise click.UsageError(config.placed(context, str(error)), context) from error
    except Refused as error:
        _say(f"stillup: {config.placed(context, str(error))}", err=True)
        sys.exit(1)
    where = ", ".join(str(bind.address) for bind in settings.binds)
    _say(f"ok  {settings.name}: {settings.app} on {where}, {settings.workers} worker(s)")
    if settings.worker.health_path:
        _say(f"    {probe_path(settings.worker)} is healthy")
