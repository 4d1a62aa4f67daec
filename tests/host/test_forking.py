"""Forking a child for another parent: in processes of their own, since a subreaper stays one."""

from __future__ import annotations

import subprocess
import sys

FORKS = """
import os, signal, sys, time
from pathlib import Path
from stillup.host import forking
from stillup.host.processes import is_unheld_child, no_reaping

forking.become_subreaper()
read, write = os.pipe()
template = os.fork()
if not template:
    os.close(read)
    pid = forking.fork_away()
    if not pid:
        forking.show_as(["a worker", "of 2 words"], {"A": "b", "C": "d e"})
        os.write(write, b"x")
        time.sleep(60)
        os._exit(1)
    forking.hide_memory(hidden=True)
    os.write(write, str(pid).encode().rjust(9))
    os.close(write)
    time.sleep(60)
    os._exit(0)
os.close(write)
said = b""
while len(said) < 10:
    said += os.read(read, 1)
pid = int(said.replace(b"x", b""))
status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
assert int(status["PPid"]) == os.getpid(), "its parent is the subreaper"
assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"a worker\\0of 2 words\\0"
assert Path(f"/proc/{pid}/environ").read_bytes() == b"A=b\\0C=d e\\0"
with no_reaping():
    assert is_unheld_child(pid)
    assert is_unheld_child(template)
    assert not is_unheld_child(os.getpid())
    assert not is_unheld_child(0)
assert Path(f"/proc/{template}/mem").stat().st_uid == 0, "nobody else may look into it"
for child in (pid, template):
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0) == (child, signal.SIGKILL)
"""

FAILS = """
import os, resource
from stillup.host import forking
real = os.fork
def fork():
    if os.getpid() == first:
        return real()
    raise BlockingIOError(11, "Resource temporarily unavailable")
first = os.getpid()
os.fork = fork
try:
    forking.fork_away()
except OSError as error:
    assert error.errno == 11
else:
    raise AssertionError("it was forked")
"""


def _run(source: str) -> None:
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_its_parent_is_the_subreaper_and_it_shows_what_it_is() -> None:
    """Pid, parent, command line and environment, as ps(1) sees them."""
    _run(FORKS)


def test_the_process_in_between_cannot_fork() -> None:
    """The error is that of fork(2), in who has asked."""
    _run(FAILS)
