"""Files of /proc with a process's number in their names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stillup.host import proc_files


def test_what_a_program_is_called_may_be_anything(tmp_path: Path) -> None:
    """The fields behind a name are found, whatever is in it: spaces, parentheses, bytes that are no text."""
    name = os.fsdecode(b") Z \xff 1")
    code = "import os, sys; open('/proc/self/comm', 'wb').write(os.fsencode(sys.argv[1])); print(); input()"
    words = [sys.executable, "-IS", "-c", code, name]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        fields = proc_files.stat_fields(process.pid)
        process.stdin.close()
    assert (fields[0] in "RSD", int(fields[1])) == (True, os.getpid())


def test_who_is_gone() -> None:
    """A number that nobody has is an OSError."""
    with subprocess.Popen([sys.executable, "-ISc", ""]) as process:
        pass
    with pytest.raises(OSError, match=str(process.pid)):
        proc_files.read(process.pid, "stat")


def test_what_is_asked_once_is_not_kept() -> None:
    """Numbers of processes come and go for as long as the service is up: none of them stays (red on Python 3.12)."""
    code = (
        "import sys, tracemalloc\n"
        "from stillup.host import peer, processes\n"
        "def ask(first):\n"
        "    for pid in range(first, first + 2_000):\n"
        "        assert processes.owner(pid) is None\n"
        "        assert peer._login_uid(pid) is None\n"
        "ask(2**30)\n"
        "tracemalloc.start()\n"
        "ask(2**30 + 2_000)\n"
        "print(tracemalloc.get_traced_memory()[0])\n"
    )
    kept = int(subprocess.check_output([sys.executable, "-c", code], timeout=60))
    assert kept < 2_000 * 20
