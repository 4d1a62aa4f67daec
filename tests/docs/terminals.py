"""Where a page's commands are run: two terminals on a machine of their own, where nothing else is."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.docs.pages import Example

DEADLINE = 90.0
HOME = "/srv/home"
"""Where the terminals are; like all of /srv and /run it is empty, and gone with the machine."""
MARK = "-- exit code "
SERVES = re.compile(r"^\S+ \S+ INFO +- +gen \d+ serves$", re.MULTILINE)
_ARRANGE = f"""
mount -t tmpfs tmpfs /srv && mount -t tmpfs tmpfs /run && ip link set lo up && mkdir {HOME} && cd {HOME} &&
echo silent > .curlrc  # as on a terminal, where curl draws no meter for what it prints there
"""


def why_not() -> str:
    """Why there can be no such machine here; empty if there can."""
    if missing := [tool for tool in ("unshare", "mount", "ip", "curl") if shutil.which(tool) is None]:
        return f"not here: {', '.join(missing)}"
    done = subprocess.run([*_unshare(), "true"], capture_output=True, text=True, check=False, timeout=30)
    return done.stderr if done.returncode != 0 else ""


def _unshare() -> list[str]:
    become = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *become, "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]


class Terminals:
    """One shell for what ends, and one after the other for what runs until Ctrl-C (``stillup run``, ``make run``).

    They are in namespaces of their own: what a page starts can use any port and any directory under /run, and whatever
    is left of it ends with the first process in there, which is the first shell, whose input ends with this process.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Have files of our own in a folder."""
        self._folder = folder
        self._environment = {**os.environ, "HOME": HOME, **environment}
        for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "MAKEFLAGS", "MAKELEVEL", "VIRTUAL_ENV"):
            self._environment.pop(name, None)
        path = self._environment["PATH"]
        self._environment["PATH"] = f"{Path(sys.executable).parent}:{path}"
        self._logs = 0

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        argv = [*_unshare(), "bash", "--noprofile", "--norc"]
        told = {"stdin": pipe, "stdout": pipe, "stderr": subprocess.STDOUT, "bufsize": 0}
        self._shell = subprocess.Popen(argv, env=self._environment, cwd="/", **told)  # type: ignore[call-overload]
        code, printed = self._type(_ARRANGE)
        if code:
            self.__exit__()
            raise AssertionError(printed)
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.stdin.close()
        try:
            self._shell.wait(30)
        finally:
            self._shell.kill()
            self._shell.wait()
            self._shell.stdout.close()

    def run(self, script: str) -> str:
        """Run a script that must succeed; what it prints."""
        code, printed = self._type(script)
        assert code == 0, f"$ {script}\n{printed}\n{self.log()}"
        return printed

    def follow(self, example: Example) -> None:
        """Run an example; it must print what the page says."""
        if re.match(r"(stillup|make) run\b", example.command):
            printed = self.start(example.command)
        else:
            _, printed = self._type(example.command)
        assert example.agrees(printed), (
            f"{example.where}: $ {example.command}\n{printed}\ninstead of\n{example.output}\n{self.log()}"
        )

    def exit_codes(self) -> list[int]:
        """Those of what ran until it was stopped."""
        logs = [path.read_text(errors="replace") for path in self._folder.glob("log-*")]
        return [int(found[1]) for log in logs if (found := re.search(r"^ended with (\d+)$", log, re.MULTILINE))]

    def log(self) -> str:
        """What was printed by that which runs until Ctrl-C and was started last."""
        path = self._folder / f"log-{self._logs}"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, script: str) -> str:
        """Start in the other terminal what runs until Ctrl-C, and wait until it serves; its log until then."""
        self._logs += 1
        (self._folder / "started").write_text(script)
        log = self._folder / f"log-{self._logs}"
        self.run(f"( . {self._folder}/started; echo ended with $? ) < /dev/null > {log} 2>&1 &")
        end = time.monotonic() + DEADLINE
        while not SERVES.search(self.log()):
            assert time.monotonic() < end, f"$ {script}\n{self.log()}"
            assert "\nended with" not in self.log(), f"$ {script}\n{self.log()}"
            time.sleep(0.02)
        return self.log()

    def _type(self, script: str) -> tuple[int, str]:
        """Run a script in the first shell, whose directory and variables it may change; its exit code and output."""
        file = self._folder / "typed"
        file.write_text(script + "\n")
        self._shell.stdin.write(f". {file} < /dev/null; code=$?; echo; echo '{MARK}'$code\n".encode())
        printed, end = b"", time.monotonic() + DEADLINE
        stop = re.compile(rb"\n" + MARK.encode() + rb"(\d+)\n$")
        while not (found := stop.search(printed)):
            ready, _, _ = select.select([self._shell.stdout], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"not within {DEADLINE:g} s: $ {script}\n{printed.decode(errors='replace')}\n{self.log()}"
            piece = os.read(self._shell.stdout.fileno(), 65536)
            assert piece, f"the shell has ended: $ {script}\n{printed.decode(errors='replace')}"
            printed += piece
        return int(found[1]), printed[: found.start()].decode(errors="replace")
