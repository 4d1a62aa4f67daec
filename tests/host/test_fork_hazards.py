"""What a process has that a child which it forks would not have, or would share to its harm: each is found."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

LOOK = """
from stillup.host import fork_hazards
known = fork_hazards.open_descriptors()
{}
print(fork_hazards.hazards(known))
"""


def hazards(source: str, folder: Path) -> list[str]:
    """What a process finds in itself that has done that."""
    argv = [sys.executable, "-c", LOOK.format(source)]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=30, check=True)
    found: list[str] = ast.literal_eval(done.stdout)
    return found


SERVER = "import socket; s = socket.create_server(('127.0.0.1', 0))"
CONNECTED = f"{SERVER}; known |= {{s.fileno()}}; c = socket.create_connection(s.getsockname())"
CHILD = """
import os, subprocess
c = subprocess.Popen(['cat', '-u'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
os.write(c.stdin.fileno(), b'.')
os.read(c.stdout.fileno(), 1)
"""
"""It has begun: it answers."""
TABLE = "execute('create table t (n)')"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (
            "import threading; threading.Thread(target=threading.Event().wait, name='T', daemon=True).start()",
            "the thread T",
        ),
        (CHILD, r"the child process \d+ \(cat -u\)"),
        (
            f"{CHILD}\nc.kill(); os.waitid(os.P_PID, c.pid, os.WEXITED | os.WNOWAIT)",
            r"the child process \d+ \(which has ended\)",
        ),
        (SERVER, r"a listening socket \(127\.0\.0\.1:\d+\)"),
        (CONNECTED, r"a socket \(127\.0\.0\.1:\d+\)"),
        ("import socket; a, b = socket.socketpair(); known |= {b.fileno()}", r"a socket \(unnamed\)"),
        ("import socket; s = socket.socket()", r"a socket \(not connected\)"),
        ("import select; e = select.epoll()", r"descriptor \d+ \(anon_inode:\[eventpoll\]\)"),
        (f"import sqlite3; d = sqlite3.connect('x.db'); d.{TABLE}", "the open SQLite database /.*/x.db"),
        ("import fcntl; f = open('lock', 'w'); fcntl.flock(f, fcntl.LOCK_EX)", "a lock on /.*/lock"),
        ("import fcntl; f = open('lock', 'w'); fcntl.lockf(f, fcntl.LOCK_EX)", "a lock on /.*/lock"),
    ],
    ids=[
        "thread",
        "child",
        "zombie",
        "listening",
        "connected",
        "pair",
        "unconnected",
        "epoll",
        "sqlite",
        "flock",
        "lockf",
    ],
)
def test_a_hazard(source: str, found: str, tmp_path: Path) -> None:
    """It is named so that whoever wrote the app finds it."""
    (said,) = hazards(source, tmp_path)
    assert re.fullmatch(found, said), said


@pytest.mark.parametrize(
    "source",
    [
        "pass",
        "from concurrent.futures import ThreadPoolExecutor; e = ThreadPoolExecutor(2)",
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('127.0.0.1', 9))",
        "import sqlite3; d = sqlite3.connect('x.db'); d.execute('create table t (n)'); d.close()",
        "f = open('written', 'w')",
        "import subprocess; subprocess.run(['true'])",
        "import os; p = os.pipe()",
    ],
    ids=["nothing", "pool", "datagram", "closed", "written", "ended", "pipe"],
)
def test_none(source: str, tmp_path: Path) -> None:
    """What a child has as well as its parent is none."""
    assert hazards(source, tmp_path) == []


ENDS = """
import faulthandler, threading
found = []
fork_hazards.ENDING = 20.0
for _ in range(300):
    faulthandler.dump_traceback_later(60)
    faulthandler.cancel_dump_traceback_later()
    found += fork_hazards.hazards(known)
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    found += fork_hazards.hazards(known)
assert not found, found
"""


def test_a_thread_that_is_ending(tmp_path: Path) -> None:
    """One that was waited for is still the kernel's for a moment, and no hazard."""
    assert hazards(ENDS, tmp_path) == []


FORKED = """
import os
fork_hazards.time.sleep = lambda _: os._exit(3)
child = os.fork()
if not child:
    fork_hazards.hazards(known)
    os._exit(0)
found = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]
assert found == [0], found
"""


def test_a_forked_process_waits_for_nobody(tmp_path: Path) -> None:
    """It has one thread, whatever Python takes for the number of that one."""
    assert hazards(FORKED, tmp_path) == []
