"""docs/options.md is what the command line says."""

from __future__ import annotations

from pathlib import Path

import click

from docs import make_options
from stillup.daemon.settings.config_reader import RESTART
from stillup.daemon.settings.options import parameters

PAGE = Path(make_options.__file__).with_name("options.md").read_text(encoding="utf-8")


def test_the_page_has_every_option_of_our_own() -> None:
    """Its first part is made of the command line: ``python -m docs.make_options > docs/options.md``."""
    assert PAGE.startswith(make_options.own_part())


def test_the_page_has_uvicorns_options() -> None:
    """Those of a version that is named: which there are is uvicorn's to say, so no others are compared."""
    _, heading, rest = PAGE.partition("\n## uvicorn's options\n")
    assert heading
    for flag in ("--host", "--port", "--workers", "--log-level", "--timeout-keep-alive"):
        assert f"| `{flag}" in rest


def test_what_takes_a_restart_is_an_option() -> None:
    """The list of options for which a re-exec is not enough names none that is not there."""
    names = {parameter.name for parameter in parameters()}
    assert names >= RESTART


def test_a_default_is_told_apart_from_the_help() -> None:
    """Whether click knows it, or the help's own words say it."""
    shown = {parameter.name: parameter for parameter in parameters()}
    assert make_options._help(shown["probation"])[1] == "30; 0 with --reload"
    assert make_options._help(shown["health_host"])[1] == "`localhost`"
    assert make_options._help(click.Option(["--switch"], is_flag=True, help="A switch.")) == ("A switch.", "")
