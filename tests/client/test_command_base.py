"""What the commands have in common: a refusal is a line and an exit code, with a link for people."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from stillup.client.rollout_commands import abort
from stillup.client.service_commands import status
from stillup.wire.api_shapes import Problem
from stillup.wire.problem_types import PROBLEM_TYPES, ProblemType
from tests.client.scripted_supervisor import answer, supervisor
from tests.system.command_line import stillup


def refusal(problem: Problem) -> bytes:
    """The answer of a supervisor that refuses."""
    return answer(msgspec.json.encode(problem), f"{problem.status} No", "application/problem+json")


def asked(command: click.Command, directory: Path, *words: str) -> tuple[int, str]:
    """The exit code of a command, and what it printed."""
    done = CliRunner().invoke(command, [*words, "--runtime-dir", str(directory)])
    return done.exit_code, done.output


@pytest.mark.parametrize("known", PROBLEM_TYPES.values(), ids=lambda one: one.code)
def test_every_problem_has_its_exit_code_and_its_link(tmp_path: Path, known: ProblemType) -> None:
    """The code is that of the table, the second line leads to where the type is explained."""
    problem = Problem(known.urn, known.title, known.status, "not now", help=known.help)
    with supervisor(tmp_path, refusal(problem)):
        assert asked(abort, tmp_path) == (known.exit_code, f"stillup: not now\n  help: docs/errors.md#{known.code}\n")


def test_programs_get_no_link_beside_the_message(tmp_path: Path) -> None:
    """With --json the message is one line, and on stdout is the problem document."""
    known = PROBLEM_TYPES["out-of-order"]
    with supervisor(tmp_path, refusal(Problem(known.urn, known.title, known.status, "not now", help=known.help))):
        done = stillup("abort", "--json", "--runtime-dir", str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "stillup: not now\n")
    assert msgspec.json.decode(done.stdout, type=Problem).type == known.urn


def test_what_has_no_type_is_a_document_too(tmp_path: Path) -> None:
    """A program reads JSON whatever happens; the exit code tells them apart."""
    for answered, code, status_of in ((None, 3, 503), (answer(b"no JSON"), 1, 504)):
        with supervisor(tmp_path, answered) if answered else contextlib.nullcontext():
            done = stillup("status", "--json", "--runtime-dir", str(tmp_path))
        said = msgspec.json.decode(done.stdout, type=Problem)
        assert (done.returncode, said.type, said.status) == (code, "about:blank", status_of)
        assert said.detail in done.stderr


def test_a_problem_of_another_version(tmp_path: Path) -> None:
    """A type that is not known here is a failure; one without a link has none."""
    with supervisor(tmp_path, refusal(Problem("urn:stillup:problem:too-late", "too late", 409, "too late"))):
        assert asked(abort, tmp_path) == (1, "stillup: too late\n")


def test_without_a_supervisor_the_exit_code_is_3(tmp_path: Path) -> None:
    """And the line says where none runs."""
    assert asked(status, tmp_path) == (3, f"stillup: no supervisor runs in {tmp_path}\n")


def test_what_makes_no_sense_is_a_failure(tmp_path: Path) -> None:
    """An answer that is no status is one line and exit 1."""
    with supervisor(tmp_path, answer(json.dumps({"name": 7}).encode())):
        code, output = asked(status, tmp_path)
    assert (code, len(output.splitlines())) == (1, 1)
