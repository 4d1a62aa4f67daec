"""The log as it was configured: its form, its file, and what workers are told of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import click
import msgspec

from stillup.daemon.settings import development
from stillup.host import journal
from stillup.wire import log_lines

OF_LOG: Final = frozenset({"log_form", "log_capture"})
"""Settings of workers that come of it."""


class LogSettings(msgspec.Struct, frozen=True):
    """All of it."""

    level: str = "info"
    form: str = log_lines.TEXT
    """One of ``wire.log_lines``."""
    color: bool = False
    file: str = ""
    """The path, absolute; empty for the stderr that we were started with."""


def parameters() -> list[click.Parameter]:
    """What the command line says of it."""
    return [
        click.Option(
            ["--log-format"],
            type=click.Choice(["auto", "text", "json"]),
            default="auto",
            show_default=True,
            help="How the log looks: the supervisor's, uvicorn's, the access log, what the app prints. json: an object "
            "a line. auto: text; where stderr is the journal, with fields of its own.",
        ),
        click.Option(
            ["--log-file"],
            type=click.Path(dir_okay=False),
            help="Write the log, and what workers write to stdout and stderr, at the end of that file; USR1 opens it "
            "anew. [default: stderr]",
        ),
    ]


def make_log_settings(given: Mapping[str, Any]) -> LogSettings:
    """Read it. What depends on where stderr leads is found out here, once."""
    file = os.path.abspath(given["log_file"]) if given["log_file"] else ""
    form = given["log_format"]
    if form == "auto":
        form = log_lines.JOURNAL if not file and journal.is_stderr() else log_lines.TEXT
    color = given["use_colors"]
    return LogSettings(
        level=given["log_level"] or "info",
        form=form,
        color=os.isatty(2) and not file if color is None else color,
        file=file,
    )


def of_workers(log: LogSettings, given: Mapping[str, Any]) -> dict[str, Any]:
    """What workers are told: with ``--log-config`` neither their log nor what is printed is given a form.

    Who debugs in a terminal has what is printed as it is, too.
    """
    configured = bool(given["log_config"])
    return {
        "log_form": "" if configured else log.form,
        "log_capture": not configured and not development.is_interactive(given),
    }
