"""Programs that are run to their end, whatever they do."""

from __future__ import annotations

import os
import time

import pytest

from stillup.host.program_run import Finished, run

pytestmark = pytest.mark.usefixtures("no_leak")
DEADLINE = 20.0


def test_what_it_is_given_and_gives() -> None:
    """Its stdin is what it is given, its environment is all that it has, and how it ends and what it writes is told."""
    script = "cat; echo $A $HOME >&2; exit 3"
    done = run(["/bin/sh", "-c", script], {"A": "b"}, b"given\0" * 1000, deadline=DEADLINE, most=100_000)
    assert done == Finished("exited 3", b"given\0" * 1000, b"b\n")


def test_the_end_of_what_it_writes_is_kept() -> None:
    """Of an output that is too long the last bytes are kept, however long it is."""
    script = "head -c 3000000 /dev/zero; echo end"
    done = run(["/bin/sh", "-c", script], {"PATH": os.defpath}, b"", deadline=DEADLINE, most=8)
    assert done == Finished("exited 0", b"\0\0\0\0end\n", b"")


@pytest.mark.parametrize("script", ["sleep 600", "yes", "exec >&- 2>&-; sleep 600", "kill -STOP $$"])
def test_it_has_a_deadline(script: str) -> None:
    """One that takes too long is killed, whatever it does meanwhile."""
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        run(["/bin/sh", "-c", script], {"PATH": os.defpath}, b"", deadline=0.3, most=10)
    assert time.monotonic() - began < DEADLINE


@pytest.mark.parametrize("child", ["sleep 600", "yes"])
def test_what_it_leaves_behind(child: str) -> None:
    """A child of its own that has its outputs keeps nobody waiting, and is ended."""
    done = run(["/bin/sh", "-c", f"{child} & echo $!"], {"PATH": os.defpath}, b"", deadline=DEADLINE, most=10_000)
    assert done.how == "exited 0"
    pid = int(done.stdout.split(b"\n")[0 if child == "sleep 600" else -1] or 0)
    deadline = time.monotonic() + DEADLINE
    while pid and os.path.exists(f"/proc/{pid}/exe"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_cannot_be_started() -> None:
    """A program that is not there is an OSError, and nothing is left of the attempt."""
    with pytest.raises(OSError, match="nowhere"):
        run(["/nowhere/at/all"], {}, b"", deadline=DEADLINE, most=10)
