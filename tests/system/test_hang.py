"""Workers that hang: replaced first, then killed; and everything that only looks like it."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from stillup.wire.api_shapes import WorkerView
from tests.system.clients import Ended, Peer, request
from tests.system.harness import APP, DEADLINE, Service, connect, eventually, in_order, lines, pids
from tests.system.mutations import DEAF, FORGOTTEN, HASTY, LATE, UNSHOWN, Mutation, mutated

LIMIT = 5.0
"""Seconds; a heartbeat comes each second, and a machine that others use may stand still for two more."""
HANG = ("--hang-timeout", f"{LIMIT:g}")
BLOCKS = """
import pathlib, time
while pathlib.Path("nobody-boots").exists():
    time.sleep(0.02)

def holds_everything_up():
    pathlib.Path("blocked").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.02)
""" + APP.replace("    body =", '    if scope["path"] == "/block":\n        holds_everything_up()\n    body =')
"""An app whose /block holds up its worker's event loop until the file `go` is there; it boots while one is not."""

NOBODY = "nobody is to be judged"


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Let these processes not run."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def ask(address: str, path: str = "/") -> str:
    """One request on a connection of its own, without a look at the status; the body."""
    with closing(connect(address)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def unmixed(log: str) -> str:
    """The log without those lines of the supervisor's that begin where a worker had not ended its own.

    ``faulthandler`` writes a stack in pieces, into the same file.
    """
    return re.sub(r"(?<!^)\d{4}-\d\d-\d\d [\d:.]{12} .*\n", "", log, flags=re.MULTILINE)


def passes(seconds: float) -> Callable[[], bool]:
    """Whether so much time has passed: a silence is a time, and nothing but its end can be waited for."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def frozen_worker_is_replaced(folder: Path, *changes: Mutation, soon: float = DEADLINE) -> None:
    """See that it is, and that it is gone ``soon`` seconds after its replacement serves."""
    environment = mutated(folder, *changes) if changes else None
    service = Service(folder, "main:app", *HANG, workers=2, environment=environment)
    service.write(BLOCKS)
    with service:
        before = pids(service)
        address = service.address()
        (folder / "nobody-boots").touch()
        seen: list[WorkerView] = []
        with stopped(before["1.1"]):

            def look() -> set[int | None]:
                workers = service.workers()
                assert len(workers) >= 2, "the replacement comes first"
                seen.extend(worker for worker in workers if worker.hung_for is not None)
                assert ask(address), "new requests are answered throughout"
                return {worker.pid for worker in workers}

            eventually(lambda: service.workers("booting") and look(), "its replacement boots, as long as we wish")
            (folder / "nobody-boots").unlink()
            eventually(lambda: look() - set(before.values()), "another worker serves")
            eventually(lambda: before["1.1"] not in look(), "only the other serves as 1.1", soon)
            eventually(lambda: len(service.family()) == 2, "the one that hung is gone")
        assert {(worker.id, worker.pid) for worker in seen} == {("1.1", before["1.1"])}
        assert seen[0].worn.endswith("(--hang-timeout)")
        after = pids(service)
        assert after.keys() == {"1.1", "1.2"}
        assert after["1.2"] == before["1.2"], "only who hung is replaced"
    in_order(
        service.log(),
        rf"worker 1\.1 \(pid {before['1.1']}\) hangs: no word for \d+ s",
        rf"worker 1\.1 \(pid {after['1.1']}\) serves",
        r"worker 1\.1 .*killed",
    )


def test_a_frozen_worker_is_replaced_then_killed(tmp_path: Path) -> None:
    """A worker that is stopped (SIGSTOP) hangs: another serves in its slot before it is killed, with SIGKILL."""
    frozen_worker_is_replaced(tmp_path)


def test_the_order_is_checked(tmp_path: Path) -> None:
    """A supervisor that kills before it replaces is found out."""
    with pytest.raises(AssertionError, match="the replacement comes first"):
        frozen_worker_is_replaced(tmp_path, HASTY)


def test_the_kill_is_checked(tmp_path: Path) -> None:
    """A supervisor that replaces and does not kill is found out."""
    with pytest.raises(AssertionError, match=r"only the other serves as 1\.1"):
        frozen_worker_is_replaced(tmp_path, FORGOTTEN, soon=LIMIT)
    in_order((tmp_path / "log").read_text(), r"worker 1\.1 \(pid \d+\) hangs", r"worker 1\.1 \(pid \d+\) serves")


def blocked_loop_is_shown(folder: Path, *changes: Mutation) -> None:
    environment = mutated(folder, *changes) if changes else None
    service = Service(folder, "main:app", *HANG, environment=environment)
    service.write(BLOCKS)
    with service:
        first = pids(service)["1.1"]
        with Peer(service.address()) as blocked:
            blocked.send(request("/block"))
            eventually((folder / "blocked").exists, "the only worker is blocked")
            with Peer(service.address()) as waiting:
                waiting.send(request())
                assert waiting.answer().pid != first, "who waited is served by the replacement"
            with pytest.raises(Ended):
                blocked.answer()
        assert pids(service)["1.1"] != first
    in_order(service.log(), r"worker 1\.1 \(pid \d+\) hangs: no word for \d+ s", r"worker 1\.1 .*killed")
    log = unmixed(service.log())
    # The worker writes this itself: it may come before the supervisor's own line, but not after the worker's end.
    in_order(log, r'main\.py", line \d+ in holds_everything_up', r"does not leave by itself: killed")
    place = int(re.findall(r"line (\d+)", next(lines(log, "in holds_everything_up")))[0])
    assert BLOCKS.splitlines()[place - 1].strip() in ("time.sleep(0.02)", 'while not pathlib.Path("go").exists():')


def test_a_blocked_event_loop_is_shown_and_replaced(tmp_path: Path) -> None:
    """The log shows the line that blocks, and the replacement answers what came after it, though there is one slot."""
    blocked_loop_is_shown(tmp_path)


def test_the_line_that_blocks_is_checked(tmp_path: Path) -> None:
    """A supervisor that does not ask for the stacks is found out."""
    with pytest.raises(AssertionError, match="in holds_everything_up"):
        blocked_loop_is_shown(tmp_path, UNSHOWN)


def test_who_comes_back_in_time_loses_nothing(tmp_path: Path) -> None:
    """A worker whose loop goes on before its replacement serves answers, hands its connections over, and leaves."""
    service = Service(tmp_path, "main:app", *HANG, "--timeout-keep-alive", "60")
    service.write(BLOCKS)
    with service, Peer(service.address()) as peer:
        first = pids(service)["1.1"]
        (tmp_path / "nobody-boots").touch()
        peer.send(request("/block"))
        eventually(lambda: "hangs: no word for" in service.log(), "it is found to hang")
        assert "hangs for" in service.cli("status").stdout
        (tmp_path / "go").touch()
        assert peer.answer().pid == first
        eventually(lambda: "is back after" in service.log(), "it is heard again")
        assert service.workers()[0].hung_for is None
        (tmp_path / "nobody-boots").unlink()
        eventually(lambda: len(service.family()) == 1 and pids(service) != {"1.1": first}, "it is replaced")
        assert peer.get().pid == pids(service)["1.1"], "its connection has crossed over"
    assert not list(lines(service.log(), "does not leave by itself"))


def test_without_a_limit_nobody_is_judged(tmp_path: Path) -> None:
    """--hang-timeout 0 leaves a worker alone, however long it hangs."""
    service = Service(tmp_path, "main:app", "--hang-timeout", "0")
    service.write()
    with service:
        before = pids(service)
        with stopped(before["1.1"]):
            eventually(passes(2 * LIMIT), "twice the other tests' limit")
            assert pids(service) == before
        assert service.get()
    assert "hangs" not in service.log()


def pause_judges_nobody(folder: Path, *changes: Mutation) -> None:
    environment = mutated(folder, *changes) if changes else None
    service = Service(folder, "main:app", *HANG, environment=environment)
    service.write()
    with service:
        before = pids(service)
        with stopped(*before.values()):
            with stopped(service.process.pid):
                eventually(passes(2 * LIMIT), "twice the limit")
            # As after the pause of a whole machine: the supervisor looks before the workers had a chance to speak.
            service.status()
            over = passes(LIMIT / 3)  # of its own time: it answers again

            def nobody_is_judged() -> bool:
                passed = over()
                assert all(worker.hung_for is None for worker in service.workers()), NOBODY
                return passed

            eventually(nobody_is_judged, "it has looked")
        requests = sum(worker.requests for worker in service.workers())
        for _ in range(4):
            service.get()
        eventually(lambda: sum(w.requests for w in service.workers()) >= requests + 4, "the workers are heard again")
        assert pids(service) == before
    assert "hangs" not in service.log()


def test_a_pause_of_everything_judges_nobody(tmp_path: Path) -> None:
    """Supervisor and workers are stopped for longer than the limit and go on: the silence was the supervisor's own."""
    pause_judges_nobody(tmp_path)


def test_the_pause_is_checked(tmp_path: Path) -> None:
    """A supervisor that does not notice that it was late is found out."""
    with pytest.raises(AssertionError, match=NOBODY):
        pause_judges_nobody(tmp_path, LATE)


def test_a_supervisor_that_was_stopped_judges_nobody(tmp_path: Path) -> None:
    """The workers serve and speak while the supervisor is stopped for longer than the limit, and all is as before."""
    service = Service(tmp_path, "main:app", *HANG)
    service.write()
    with service:
        before, address = pids(service), service.address()
        with stopped(service.process.pid):
            over = passes(2 * LIMIT)
            eventually(lambda: ask(address) and over(), "twice the limit, in which all is served")
        served = sum(worker.requests for worker in service.workers())
        assert ask(address)
        eventually(lambda: sum(w.requests for w in service.workers()) > served, "the workers are heard")
        assert pids(service) == before
    assert "hangs" not in service.log()


class Unread(Service):
    """A service whose stdout and stderr are a pipe of 4 KiB that nobody reads before ``read`` is called."""

    def start(self) -> None:
        self._reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        self.process = subprocess.Popen(
            self.argv, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing, cwd=self.folder, env=self._environment
        )
        os.close(writing)
        self._read: list[bytes] = []
        self._reader = threading.Thread(target=self._take, daemon=True)
        self.until_serving()

    def __exit__(self, *error: object) -> None:
        self.read()
        super().__exit__(*error)
        self._reader.join(10)
        os.close(self._reading)

    def read(self) -> None:
        """Read all that comes, from now on."""
        if not self._reader.is_alive():
            self._reader.start()

    def _take(self) -> None:
        while data := os.read(self._reading, 65536):
            self._read.append(data)

    def log(self) -> str:
        return b"".join(self._read).decode(errors="replace")


def waits_for_a_reader(pid: int) -> bool:
    """Whether the process's main thread is in a write(2) to its stdout or stderr (proc_pid_syscall(5))."""
    said = Path(f"/proc/{pid}/syscall").read_text(encoding="ascii").split()
    return said[0] == str(WRITE) and int(said[1], 16) in (1, 2)


WRITE = {"x86_64": 1, "aarch64": 64}.get(os.uname().machine, -1)


def full_pipe_judges_nobody(folder: Path, *changes: Mutation) -> None:
    environment = mutated(folder, *changes) if changes else None
    service = Unread(folder, "main:app", *HANG, environment=environment)
    service.write()
    with service, ExitStack() as stack:
        before, address = pids(service), service.address()
        peers: list[Peer] = []

        def all_wait() -> bool:
            if all(waits_for_a_reader(pid) for pid in before.values()):
                return True
            for _ in range(5):
                peers.append(stack.enter_context(Peer(address)))
                peers[-1].send(request(f"/{'x' * 500}"))
            return False

        eventually(all_wait, "the worker waits to write to its log")
        over = passes(2 * LIMIT)

        def nobody_is_judged() -> bool:
            workers = service.workers()
            assert all(worker.hung_for is None for worker in workers), NOBODY
            assert {worker.id: worker.pid for worker in workers} == before, NOBODY  # one that hung is replaced at once
            return over()

        eventually(nobody_is_judged, "twice the limit")
        service.read()
        for peer in peers:
            assert peer.answer().status == 200
        served = sum(worker.requests for worker in service.workers())
        assert ask(address)
        eventually(lambda: sum(w.requests for w in service.workers()) > served, "the workers are heard")
        assert pids(service) == before
    assert "serves" in service.log()
    assert "hangs" not in service.log()


needs_syscall = pytest.mark.skipif(WRITE < 0, reason="does not know this machine's number of write(2)")


@needs_syscall
def test_a_full_log_judges_nobody(tmp_path: Path) -> None:
    """When nobody reads the log all workers wait for that, and none is to blame; when it is read again all goes on."""
    full_pipe_judges_nobody(tmp_path)


@needs_syscall
def test_the_full_log_is_checked(tmp_path: Path) -> None:
    """A supervisor that does not look at its log is found out."""
    with pytest.raises(AssertionError, match=NOBODY):
        full_pipe_judges_nobody(tmp_path, DEAF)
