"""What is known of a caller that holds more capabilities than we do, and so is not ours to look at."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stillup.host.capability_sets import holds_more_than_children

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

FEW = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
LOOK = """
import os, socket, sys
from stillup.host.capability_sets import holds_more_than_children
from stillup.host.peer import hold
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print(flush=True)
while True:
    sock, _ = listener.accept()
    found = hold(sock)
    print(found.identify(set(), "/run/x/handoff.sock", {os.geteuid()}).unseen or "seen", flush=True)
    found.close()
    sock.close()
"""
CALL = """
import ctypes, socket, sys
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: as of who hides what it was started with
socket.socket(socket.AF_UNIX).connect(sys.argv[1])
print(flush=True)
sys.stdin.read()
"""


def test_who_holds_more_than_a_child_can(tmp_path: Path) -> None:
    """Root's shell is seen by a supervisor with few capabilities; who has as few and hides its environment is not."""
    path = str(tmp_path / "control.sock")
    pipe = subprocess.PIPE
    argv = [*FEW, sys.executable, "-c", LOOK, path]
    with subprocess.Popen(argv, stdout=pipe, text=True) as looks:
        assert looks.stdout is not None
        try:
            looks.stdout.readline()
            with socket.socket(socket.AF_UNIX) as mine:
                mine.connect(path)
                assert looks.stdout.readline() == "seen\n"
            with subprocess.Popen([*FEW, sys.executable, "-c", CALL, path], stdin=pipe, stdout=pipe) as hides:
                assert looks.stdout.readline() == "its environment cannot be read\n"
                hides.communicate(b"", 20)
        finally:
            looks.kill()


def test_our_own_child() -> None:
    """A child holds no more than we do, with all of our capabilities or with none."""
    for words in ((), FEW):
        with subprocess.Popen([*words, "cat"], stdin=subprocess.PIPE) as child:
            assert not holds_more_than_children(child.pid)
            child.communicate(b"", 20)


def test_nobody() -> None:
    """Of a process that is not there nothing is said."""
    with pytest.raises(OSError, match="No such file"):
        holds_more_than_children(2**22 + 1)
