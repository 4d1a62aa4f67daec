"""Stopping at a breakpoint under --reload, in a real terminal, and saving meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import sys
import termios
import threading
import time
from pathlib import Path

from tests.system.harness import APP, DEADLINE, Service, eventually

SHELL = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    _, status = os.waitpid(job, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        sys.exit(os.waitstatus_to_exitcode(status))
    os.tcsetpgrp(0, os.getpid())
    print("shell> ", end="", flush=True)
    print("the shell read", sys.stdin.readline(), flush=True)
    os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
"""
"""Runs a program in the foreground of its terminal; when that is stopped, reads a line, and continues it."""
STOPS = APP.replace("    body =", '    if scope["path"] == "/stop": breakpoint()\n    body =')
SECOND = int(time.time()) + 600
"""When each save is said to be, so that they are in one second, however long they take."""


class Terminal:
    """The operator's side of a pseudo-terminal."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.modes = termios.tcgetattr(self.slave)
        self.seen = ""
        self._read = 0

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def shows(self, text: str) -> str:
        """Wait until that is shown after what was waited for last; what came before it."""
        end = time.monotonic() + DEADLINE
        while (place := self.seen.find(text, self._read)) < 0:
            ready, _, _ = select.select([self.master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"not shown: {text!r} after\n{self.seen[self._read :]}"
            self.seen += os.read(self.master, 65536).decode(errors="replace").replace("\r\n", "\n")
        before, self._read = self.seen[self._read : place], place + len(text)
        return before

    def answers(self, typed: str, text: str) -> None:
        """Type something, and wait until that is shown."""
        self.type(typed)
        self.shows(text)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


def test_a_breakpoint(tmp_path: Path) -> None:
    """It has the terminal, saves wait until it goes on; Ctrl-Z gives the shell what is typed, Ctrl-C ends all of it."""
    terminal = Terminal()
    words = ("--reload", "--reload-delay", "0.05", "--drain-timeout", "0.5")
    service = Service(tmp_path, "main:app", *words, environment={"PYTHONDONTWRITEBYTECODE": ""})
    service.argv = [sys.executable, "-c", SHELL, *service.argv]
    service.popen = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.slave)
    service.write(STOPS)
    try:
        with service:
            terminal.shows("watching ")
            answers: list[str] = []
            client = threading.Thread(target=lambda: answers.append(service.get("/stop")))
            client.start()
            terminal.shows("(Pdb) ")
            terminal.answers("p 6 * 7\n", "\n42\n(Pdb) ")
            terminal.answers("\x1a", "shell> ")
            terminal.answers("ls\n", "the shell read ls")
            terminal.answers("p 5 * 5\n", "\n25\n(Pdb) ")
            _save(service, "v2")
            terminal.shows("main.py changed: the reload waits, since a debugger has the terminal")
            terminal.answers("p scope['path']\n", "'/stop'")
            assert service.generations() == [1]
            terminal.type("c\n")
            client.join()
            assert answers[0].startswith("1 ")
            terminal.shows("gen 2 serves")
            eventually(lambda: service.get().endswith("v2"), "what was saved meanwhile")
            _save(service, "v3")
            terminal.shows("gen 3 serves")
            eventually(lambda: service.get().endswith("v3"), "of two saves of one size in one second the last one")
            service.write("breakpoint()\n" + STOPS, "v4")
            terminal.shows("(Pdb) ")
            terminal.answers("p __name__\n", "'main'")
            terminal.answers("c\n", "gen 4 serves")
            eventually(lambda: len(service.generations()) == 1, "the old one has left")
            threading.Thread(target=_ask_in_vain, args=(service,)).start()
            terminal.shows("(Pdb) ")
            assert termios.tcgetattr(terminal.slave) != terminal.modes, "a line is being edited"
            terminal.type("\x03")
            assert service.process.wait(DEADLINE) == 0
            assert termios.tcgetattr(terminal.slave) == terminal.modes
    finally:
        terminal.close()


def _save(service: Service, version: str) -> None:
    """Save, in the same second each time."""
    service.write(STOPS, version)
    os.utime(service.folder / "main.py", (SECOND, SECOND))


def _ask_in_vain(service: Service) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        service.get("/stop")
