"""A real service for a test: `stillup run` in a process, its app in a folder of the test's own."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil

from stillup.client import Client, NotRunningError
from stillup.wire.api_shapes import RolloutView, Status, WorkerView
from tests.system.command_line import stillup

ROOT = Path(__file__).resolve().parents[2]
STILLUP = str(Path(sys.executable).with_name("stillup"))
DEADLINE = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.1
"""Seconds between two looks: most are answered by the service that is looked at, which has something else to do."""
T = TypeVar("T")
FULL = os.environ.get("PROVE") == "full"
"""Whether what is tried at random is tried as often as `make prove-repeats` does."""


def sample(values: Sequence[T], few: int = 1) -> Sequence[T]:
    """The first few of what is tried in the same way; all of them where `make prove-repeats` tries them."""
    return values if FULL else values[:few]


APP = """
import os
GENERATION = os.environ["STILLUP_GENERATION"]
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            step = (await receive())["type"]
            await send({"type": step + ".complete"})
            if step == "lifespan.shutdown":
                return
    body = f"{GENERATION} {os.getpid()} VERSION".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-length", str(len(body)).encode()), (b"x-gen", GENERATION.encode())]})
    await send({"type": "http.response.body", "body": body})
"""
"""The smallest app that says who answers: ``GENERATION PID VERSION``."""


def eventually(
    look: Callable[[], T | None], what: str, deadline: float = DEADLINE, longest: float = LONGEST_PAUSE
) -> T:
    """Look until what is seen is true, at least every ``longest`` seconds; at the deadline it fails, naming what."""
    end, pause = time.monotonic() + deadline, FIRST_PAUSE
    while not (seen := look()):
        assert time.monotonic() < end, f"not within {deadline:g} s: {what}"
        time.sleep(pause)
        pause = min(pause * 1.3, longest)
    return seen


class Service:
    """One service. ``with`` starts it, waits until it serves, and stops it, leaving nothing behind."""

    def __init__(
        self,
        folder: Path,
        app: str = "main:app",
        *options: str,
        binds: Sequence[str] = ("127.0.0.1:0",),
        workers: int = 1,
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
        inherited: Sequence[int] = (),
        runtime: Path | None = None,
    ) -> None:
        self.folder = folder
        self.runtime = runtime or folder / "rt"
        self._inherited = inherited
        self.log_file = folder / "log"
        self.client = Client(str(self.runtime))
        self.popen: dict[str, Any] = {}
        """What else, or instead, Popen is to be told."""
        self._wait = wait
        self._environment = {**os.environ, **(environment or {})}
        self.argv = [STILLUP, "run", app, "--workers", str(workers), "--runtime-dir", str(self.runtime)]
        # A tenth of what a service costs is the import of what WebSockets need; who is about them says '--ws auto'.
        self.argv += ["--ws", "none", *options]
        for bind in binds:
            self.argv += ["--bind", bind]

    def write(self, source: str = APP, version: str = "v1", name: str = "main.py") -> None:
        """Write the app's source into its folder, at once: a worker may be started at any moment."""
        new = self.folder / f"{name}.new"
        new.write_text(textwrap.dedent(source).replace("VERSION", version))
        new.rename(self.folder / name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        self.start_without_waiting()
        if self._wait:
            self.until_serving()

    def start_without_waiting(self) -> None:
        with self.log_file.open("ab") as log:
            told = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "cwd": self.folder}
            told |= {"env": self._environment, "pass_fds": self._inherited}
            self.process = subprocess.Popen(self.argv, **{**told, **self.popen})

    def __exit__(self, *_: object) -> None:
        family = self.descendants() if self.process.poll() is None else []
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"did not stop:\n{self.log()}") from None
        finally:
            gone, alive = psutil.wait_procs(family, DEADLINE)
            for process in alive:
                process.kill()
            assert not alive, f"left behind: {alive} ({len(gone)} left)\n{self.log()}"
        assert "Traceback" not in self.log() or self.tracebacks_expected, self.log()
        assert not self.runtime.exists() or not list(self.runtime.iterdir()), list(self.runtime.iterdir())

    tracebacks_expected = False

    def descendants(self) -> list[psutil.Process]:
        """All processes below the supervisor."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def templates(self) -> list[psutil.Process]:
        """What forks its workers, and knows no app."""
        return [process for process in self.descendants() if _last_word(process).endswith(":template")]

    def preloaders(self) -> list[psutil.Process]:
        """What forks its workers, and has imported the app."""
        return [process for process in self.descendants() if _last_word(process).endswith(".preload")]

    def family(self) -> list[psutil.Process]:
        """Its workers, and what these have started."""
        return [process for process in self.descendants() if not forks_workers(process)]

    def until_serving(self) -> Status:
        """Wait until the service serves."""

        def look() -> Status | None:
            assert self.process.poll() is None, f"ended early with {self.process.returncode}:\n{self.log()}"
            try:
                status = self.client.status()
            except NotRunningError:
                return None
            return status if status.state == "serving" else None

        return eventually(look, f"serving\n{self.log()}")

    def status(self) -> Status:
        return self.client.status()

    def workers(self, state: str = "serving") -> list[WorkerView]:
        return [w for g in self.status().generations for w in g.workers if w.state == state]

    def generations(self) -> list[int]:
        return [g.id for g in self.status().generations]

    def settled(self, number: int) -> RolloutView:
        """Wait for the outcome of a rollout."""

        def look() -> RolloutView | None:
            rollout = self.client.rollout(number)
            return rollout if rollout.outcome is not None else None

        return eventually(look, f"rollout {number} settled")

    def reexecuted(self, times: int) -> None:
        """Wait until the supervisor's program has been replaced so often."""

        def look() -> bool:
            try:
                return self.status().reexecs == times
            except NotRunningError:  # between its two programs a supervisor may hang up
                return False

        eventually(look, f"replaced {times} times")

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command for this service, in this process."""
        return stillup(*words, "--runtime-dir", str(self.runtime))

    def reload(self) -> subprocess.CompletedProcess[str]:
        return self.cli("reload")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def address(self, index: int = 0) -> str:
        return self.status().listeners[index].address

    def get(self, path: str = "/", index: int = 0) -> str:
        """One request on a connection of its own; the body of a 200."""
        with closing(connect(self.address(index))) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read().decode()
        assert response.status == 200, (response.status, body)
        return body

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def logged(self, *parts: str) -> str:
        """Wait until there is a line of the log with these parts, which a thread writes; that line."""
        return eventually(lambda: next(lines(self.log(), *parts), ""), f"{parts} in the log")


def older_interpreter(folder: Path, variable: str) -> str:
    """A Python whose stillup knows nothing of what that variable says: a worker that is told of it ends."""
    python = folder / "python"
    refuses = f'[ -z "${{{variable}+x}}" ] || {{ echo too old >&2; exit 2; }}'
    python.write_text(f'#!/bin/sh\n{refuses}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


def forks_workers(process: psutil.Process) -> bool:
    """Whether it forks workers, and is none."""
    return _last_word(process).endswith((":template", ".preload"))


def _last_word(process: psutil.Process) -> str:
    """Of its command line; empty if it has ended, and is reaped or is not."""
    try:
        return process.cmdline()[-1]
    except (psutil.NoSuchProcess, IndexError):
        return ""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=DEADLINE)
        self.path = path

    def connect(self) -> None:
        self.sock = open_socket(self.path)


def check(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    """``stillup check`` with an interpreter of the release's own, which sees nothing of ours; and with a probe."""
    argv = [STILLUP, "check", "main:app", "--python", python, "--health-path", "/"]
    environment = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run(
        argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )


def connect(address: str) -> http.client.HTTPConnection:
    """A connection to what a listener's address says."""
    if address.startswith("unix:"):
        return _UnixConnection(address)
    host, _, port = address.rpartition(":")
    return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=DEADLINE)


def open_socket(address: str) -> socket.socket:
    """A connected stream socket."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        path = address.removeprefix("unix:")
        sock.connect(f"\0{path[1:]}" if path.startswith("@") else path)
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=DEADLINE)


def alone(service: Service) -> int:
    """Wait until no caller is connected any more; the supervisor's pid."""
    control = f" {service.runtime}/control.sock"

    def look() -> bool:
        """Whether the listening socket is all that has its address: who is connected to it has it, too (unix(7))."""
        return sum(line.endswith(control) for line in Path("/proc/net/unix").read_text().splitlines()) == 1

    eventually(look, "no caller")
    return service.process.pid


def descriptors(pid: int) -> dict[str, str]:
    """A process's open descriptors and what they are."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[name] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def lines(text: str, *parts: str) -> Iterator[str]:
    """The lines of a text in which every part stands."""
    return (line for line in text.splitlines() if all(part in line for part in parts))


def in_order(text: str, *patterns: str) -> None:
    """Every pattern is found in the text, each after the one before."""
    place = 0
    for pattern in patterns:
        found = re.compile(pattern).search(text, place)
        assert found, f"no {pattern!r} after character {place} of\n{text}"
        place = found.end()


def pids(service: Service) -> dict[str, int]:
    """The processes that serve, by the names of their workers."""
    return {worker.id: worker.pid for worker in service.workers() if worker.pid is not None}
