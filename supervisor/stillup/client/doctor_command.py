"""``stillup doctor``: the findings as a person reads them, and as a program does."""

from __future__ import annotations

import os
import sys

import click
import msgspec

from stillup.client.client_errors import NotRunningError
from stillup.client.command_base import (
    FAILED,
    json_option,
    leave,
    print_answer,
    refuse_elsewhere,
    remote_option,
    service_options,
)
from stillup.client.doctor.findings import Finding, findings
from stillup.client.doctor.gather import gather
from stillup.client.doctor.protections import protections
from stillup.client.plain_output import Printer
from stillup.client.service_choice import choice
from stillup.client.service_lookup import find
from stillup.core.amounts import amount
from stillup.errors import UsageError
from stillup.wire.runtime_paths import runtime_directory

_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


class DoctorReport(msgspec.Struct, frozen=True):
    """What --json shows."""

    directory: str
    problems: int
    warnings: int
    findings: list[Finding]


@click.command
@service_options
@remote_option
@json_option("The findings as JSON.")
def doctor(*, name: str | None, runtime_dir: str | None, config: str | None, remote: str | None, as_json: bool) -> None:
    """Look at what goes wrong in practice, and say what to do about it; nothing is changed.

    The runtime directory and its sockets (owners, groups, modes, what a dead supervisor has left), limits of
    descriptors and backlogs, what the kernel can, SELinux and AppArmor, systemd, the packages; which protections
    (docs/security.md) are off here. With or without a supervisor: without one, it looks at what 'stillup run' would
    use here. As root it sees most.

    Exit 0 if there is no problem; a warning is none.
    """
    refuse_elsewhere(remote, "doctor")
    try:
        directory = _directory(name, runtime_dir, config)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    facts = gather(directory)
    found = [*findings(facts), *protections(facts)]
    verdicts = [finding.verdict for finding in found]
    report = DoctorReport(directory, verdicts.count("problem"), verdicts.count("warning"), found)
    print_answer(report, _show, as_json=as_json)
    if report.problems:
        sys.exit(FAILED)


def _directory(name: str | None, runtime_dir: str | None, config: str | None) -> str:
    """The runtime directory of the service that is meant, else of the one that would be started here.

    Raises:
        UsageError: there are several, or that is no name.
    """
    try:
        return find(name, runtime_dir, config=config, or_orphaned=True)
    except NotRunningError:
        chosen = choice(name, runtime_dir, config)
    if chosen.place is not None:
        return chosen.place.value
    if not chosen.default:
        leave("the working directory has been removed; say which service with --name or --runtime-dir", 2)
    return runtime_directory(chosen.default, os.geteuid(), os.environ)


def _show(report: DoctorReport) -> None:
    out = Printer()
    for finding in report.findings:
        verdict = (f"{finding.verdict:<8}", _STYLES[finding.verdict])
        out.line(verdict, f" {finding.check}: {finding.seen}")
        if finding.advice:
            out.line(f"         -> {finding.advice}")
    out.line(f"{amount(report.problems, 'problem')}, {amount(report.warnings, 'warning')} in {report.directory}")
