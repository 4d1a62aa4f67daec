"""``stillup doctor``: the findings as a person reads them, and as a program does."""

from __future__ import annotations

import os
import sys

import click
import msgspec
from rich.console import Console
from rich.text import Text

from supervisor.client.command import leave, print_json
from supervisor.client.doctor.findings import Finding, findings
from supervisor.client.doctor.gather import gather
from supervisor.client.find import find
from supervisor.client.http import NotRunningError
from supervisor.errors import UsageError
from supervisor.wire.places import default_name, runtime_directory

_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


class Report(msgspec.Struct, frozen=True):
    """What --json shows."""

    directory: str
    problems: int
    warnings: int
    findings: list[Finding]


@click.command(short_help="Look at what goes wrong in practice, and say what to do.")
@click.option("--name", help="The service's name.")
@click.option("--runtime-dir", type=click.Path(readable=False), help="Where its control socket is, or will be.")
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON.")
def doctor(*, name: str | None, runtime_dir: str | None, as_json: bool) -> None:
    """Look at what goes wrong in practice, and say what to do about it; nothing is changed.

    The runtime directory and its sockets (owners, groups, modes, what a dead supervisor has left), limits of
    descriptors and backlogs, what the kernel can, SELinux and AppArmor, systemd, the packages. With or without a
    supervisor: without one, it looks at what 'stillup run' would use here. As root it sees most.

    Exit 0 if there is no problem; a warning is none.
    """
    try:
        directory = _directory(name, runtime_dir)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    found = findings(gather(directory))
    verdicts = [finding.verdict for finding in found]
    report = Report(directory, verdicts.count("problem"), verdicts.count("warning"), found)
    if as_json:
        print_json(report)
    else:
        _show(report)
    if report.problems:
        sys.exit(1)


def _directory(name: str | None, runtime_dir: str | None) -> str:
    """The runtime directory of the service that is meant, else of the one that would be started here.

    Raises:
        UsageError: there are several, or that is no name.
    """
    try:
        return find(name, runtime_dir, left=True)
    except NotRunningError:
        pass
    try:
        here = os.getcwd()
    except OSError:
        leave("the working directory has been removed; say which service with --name or --runtime-dir", 2)
    return runtime_directory(default_name(here), os.geteuid(), os.environ)


def _show(report: Report) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for finding in report.findings:
        verdict = (f"{finding.verdict:<8}", _STYLES[finding.verdict])
        console.print(Text.assemble(verdict, f" {finding.check}: {finding.seen}"))
        if finding.advice:
            console.print(Text(f"         -> {finding.advice}"))
    console.print(Text(f"{report.problems} problems, {report.warnings} warnings in {report.directory}"))
