"""``stillup init``: a stillup.toml for the app that is here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from stillup.daemon.settings.app_name import check_app
from stillup.daemon.settings.app_search import FoundApp, search
from stillup.errors import Refused, UsageError
from stillup.host import config_file
from stillup.wire.config_text import FILES, toml_line
from stillup.wire.plain_text import escaped, quoted
from stillup.wire.runtime_paths import default_name

_PYTHONS: Final = (".venv/bin/python", "venv/bin/python", "env/bin/python")
_MOST_OTHERS: Final = 5


@click.command
@click.argument("app", required=False)
def init(*, app: str | None) -> None:
    """Write a stillup.toml for the app that is found in this directory, or for APP (MODULE:ATTRIBUTE).

    The sources are read for it, and nothing is run. It says what it found, and leaves a file that is there as it is.
    """
    try:
        here = os.getcwd()
        if config_file.find(None).path:
            raise Refused(f"{config_file.find(None).path} has settings already, and is left as it is", code="usage")
        found = [FoundApp(check_app(app, here), "", "", 0)] if app else search(here)
        if not found:
            raise Refused(
                "no app is found in the sources here: 'stillup init MODULE:ATTRIBUTE' says which", code="usage"
            )
        python = _python()
        config_file.create(FILES[0], _text(found[0], default_name(here), python))
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    except (Refused, OSError) as error:
        for line in quoted(f"stillup: {error}"):
            click.echo(line, err=True)
        sys.exit(1)
    for line in _told(found, python):
        click.echo(escaped(line))


def _python() -> str:
    """The project's own interpreter, if that is another than ours."""
    for path in _PYTHONS:
        prefix = os.path.dirname(os.path.dirname(os.path.abspath(path)))
        if os.access(path, os.X_OK) and not (os.path.exists(sys.prefix) and os.path.samefile(prefix, sys.prefix)):
            return path
    return ""


def _text(app: FoundApp, name: str, python: str) -> str:
    """The file."""
    lines = [toml_line("app", app.name)]
    if app.is_factory:
        lines.append(toml_line("factory", value=True))
    if app.is_wsgi:
        lines.append(toml_line("interface", "wsgi"))
    if app.app_dir:
        lines.append(toml_line("app-dir", app.app_dir))
    lines.append(toml_line("name", name))
    if python:
        lines.append(toml_line("python", python))
    lines += [toml_line("bind", ["127.0.0.1:8000"]), toml_line("workers", 2)]
    if app.health_path:
        lines.append(toml_line("health-path", app.health_path))
    else:
        lines.append('# health-path = "/healthz"   # a new worker must answer it before it serves')
    return "\n".join(lines) + "\n"


def _told(found: Sequence[FoundApp], python: str) -> list[str]:
    app, *others = found
    where = f" ({app.what}, {app.path}, line {app.line})" if app.path else ""
    lines = [f"found {app.name}{where}"] if where else []
    lines += [f"  not taken: {one.name} ({one.what}, {one.path}, line {one.line})" for one in others[:_MOST_OTHERS]]
    if len(others) > _MOST_OTHERS:
        lines.append(f"  and {len(others) - _MOST_OTHERS} more")
    if python:
        lines.append(f"workers have {python}, which needs stillup too: {python} -m pip install stillup")
    return [*lines, f"wrote {FILES[0]}", "next: stillup check, then stillup run"]
