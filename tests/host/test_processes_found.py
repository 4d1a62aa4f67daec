"""Processes of another parent: found by pid and start time, so that a number used again is not taken for one."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from stillup.core.states import HOW_UNKNOWN
from stillup.host.processes import boot_id, find, hold
from tests.host.example_children import DEADLINE, child, ended, field, running

pytestmark = pytest.mark.usefixtures("no_leak")

ROOT = Path(__file__).parents[2]


def start_time(pid: int) -> int:
    """Clock ticks from the host's start to the process's, by other means than ours."""
    text = subprocess.run(["cat", f"/proc/{pid}/stat"], capture_output=True, text=True, check=True).stdout
    return int(text[text.rindex(")") + 2 :].split()[19])


def test_find() -> None:
    """A process is found by its pid and the time of its start, and can be signalled like a child."""
    with running() as process:
        assert process.started == start_time(process.pid)
        found = find(process.pid, process.started)
        assert found is not None
        assert (found.pid, found.started, found.has_ended()) == (process.pid, process.started, False)
        found.kill()
        assert ended(process) == "killed by SIGKILL"
        assert found.has_ended()
        assert found.reap() == "ended; how is not known"
        found.close()


def test_a_name_that_looks_like_more(tmp_path: Path) -> None:
    """A program may be named so that its entry in /proc is hard to read; its start is read all the same."""
    program = tmp_path / "a) R 1 (b"
    shutil.copy("/bin/sleep", program)
    with child(str(program), "60") as (process, _, _):
        assert process.started == start_time(process.pid)
        again = hold(process.pid)
        assert again.started == process.started
        again.close()


def test_a_number_that_was_used_again() -> None:
    """Under the same number with another start is another process: it is not taken hold of."""
    with running() as process:
        for started in (process.started - 1, process.started + 1, 0, -1):
            assert find(process.pid, started) is None


def test_nobody_is_found_where_nobody_lives() -> None:
    """A process that has ended is not found; one that was a child of ours, and unreaped, is reaped on the way."""
    with child("/bin/true") as (process, _, _):
        poll = select.poll()
        poll.register(process.pidfd, select.POLLIN)
        assert poll.poll(DEADLINE * 1000)
        assert field(process.pid, "State").startswith("Z")
        assert find(process.pid, process.started) is None
        assert process.reap() == HOW_UNKNOWN
        assert find(process.pid, process.started) is None


def test_a_number_that_is_a_threads_now() -> None:
    """Threads have their numbers from the same row: a process whose number a thread has now is gone."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        assert thread.native_id != os.getpid()
        assert find(thread.native_id, 0) is None
    finally:
        done.set()
        thread.join()


def test_no_descriptor_left() -> None:
    """Without a descriptor nobody can be found, and that is not said of the process."""
    script = (
        "import os, resource, sys; from stillup.host import processes; me = processes.hold(os.getpid()); "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); processes.find(os.getpid(), me.started)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "OSError: [Errno 24] Too many open files"


def test_boot_id() -> None:
    """The kernel's name for this boot is one, and stays the same."""
    assert str(uuid.UUID(boot_id())) == boot_id()
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
