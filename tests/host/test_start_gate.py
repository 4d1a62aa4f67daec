"""A process waits behind a gate until it is let through, and ends if it never is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from stillup.host.start_gate import StartGate

pytestmark = pytest.mark.usefixtures("no_leak")

WAITS = "import sys; sys.exit(0 if sys.stdin.read(1) else 126)"


@pytest.fixture
def gate() -> Iterator[StartGate]:
    with closing(StartGate()) as made:
        yield made


def behind(gate: StartGate) -> subprocess.Popen[bytes]:
    """A process that has the gate as its stdin, which is not ours any more."""
    process = subprocess.Popen([sys.executable, "-c", WAITS], stdin=gate.stdin)
    gate.started()
    assert gate.stdin is None
    return process


def test_it_is_let_through_once(gate: StartGate) -> None:
    """By a byte; whoever opens the gate again, or shuts it then, changes nothing."""
    process = behind(gate)
    gate.open()
    assert process.wait(60) == 0
    gate.open()
    gate.shut()


def test_it_ends_when_the_gate_is_shut(gate: StartGate) -> None:
    """By the end of the file; it is not let through after that."""
    process = behind(gate)
    gate.shut()
    gate.open()
    assert process.wait(60) == 126


def test_nobody_is_behind_it(gate: StartGate) -> None:
    """Opening the gate of a process that has ended fails nobody."""
    process = behind(gate)
    process.kill()
    process.wait(60)
    gate.open()
