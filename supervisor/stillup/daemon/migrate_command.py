"""``stillup migrate``: a stillup.toml of what gunicorn is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from stillup.core.amounts import amount
from stillup.daemon.settings import gunicorn_file
from stillup.daemon.settings.config import GUNICORN_FILE
from stillup.daemon.settings.gunicorn_file import Migrated
from stillup.daemon.settings.options import parameters
from stillup.errors import Refused, UsageError
from stillup.host import config_file
from stillup.wire.config_text import FILES, toml_line
from stillup.wire.plain_text import escaped, quoted

_NO_APP: Final = "# app = \"main:app\"   # which app? 'stillup run MODULE:ATTRIBUTE' says it, too"


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--output", "-o", metavar="FILE", default=FILES[0], show_default=True, help="Where to; - prints it.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[FILE] [GUNICORN'S WORDS]...")
def migrate(*, output: str, words: tuple[str, ...]) -> None:
    """Write a stillup.toml that says what gunicorn is told, and list what has no counterpart here.

    'stillup migrate gunicorn.conf.py', or any command line of gunicorn's with 'stillup migrate' in place of 'gunicorn'.
    GUNICORN_CMD_ARGS counts, too. Without a FILE it is the gunicorn.conf.py of this directory.

    FILE is a program: it is executed, as you, as gunicorn would at its start. Nothing else is started or changed, and a
    file that is there already is left as it is.
    """
    try:
        source, said = _said(words)
        migrated = gunicorn_file.migrate(said, parameters())
        text = _text(source, migrated)
        if output == "-":
            click.echo(text, nl=False)
            return
        config_file.create(output, text)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    except (Refused, OSError) as error:
        for line in quoted(f"stillup: {error} (--output)"):
            click.echo(line, err=True)
        sys.exit(1)
    click.echo(f"wrote {output}: {amount(len(migrated.values), 'setting')} of {source}")
    if migrated.left:
        click.echo("without a counterpart, or another here:")
    for name, note in migrated.left:
        click.echo(escaped(f"  {name:<20} {note}"))
    click.echo(f"next: stillup check{'' if output == FILES[0] else f' --config {output}'}")


def _said(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """What the file, the variable and the words say, the later over the earlier; and what it is all from."""
    rest = list(words)
    file = rest.pop(0) if rest and rest[0].endswith(".py") else None
    line = gunicorn_file.arguments(rest)
    variable = gunicorn_file.of_variable(os.environ.get("GUNICORN_CMD_ARGS", ""))
    file = file or line.pop("config", None) or variable.pop("config", None)
    if file is None and not words and not variable and not os.path.exists(GUNICORN_FILE):
        raise UsageError(f"there is no {GUNICORN_FILE} here, and GUNICORN_CMD_ARGS is not set: which FILE?")
    if file is None and os.path.exists(GUNICORN_FILE):
        file = GUNICORN_FILE
    said = {**(gunicorn_file.execute(file) if file is not None else {}), **variable, **line}
    sources = [file, "GUNICORN_CMD_ARGS" if variable else None, "the command line" if line else None]
    return ", ".join(source for source in sources if source), said


def _text(source: str, migrated: Migrated) -> str:
    """The file."""
    lines = [f"# From {escaped(source)}, by 'stillup migrate'."]
    if "app" not in migrated.values:
        lines.append(_NO_APP)
    lines += [toml_line(key, value) for key, value in migrated.values.items()]
    if migrated.left:
        lines += ["", "# Of gunicorn's settings, without a counterpart or another here:"]
        lines += [escaped(f"#   {name}: {note}") for name, note in migrated.left]
    return "\n".join(lines) + "\n"
