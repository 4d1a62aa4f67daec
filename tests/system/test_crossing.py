"""Connections on their way from one worker to another, and what may happen to the workers meanwhile."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks.control import Control
from benchmarks.drop import SOON, demand_nothing_lost
from benchmarks.load import MIXED, Load, Pace, Report, Target
from supervisor.wire.control import CrossingView
from tests.system.clients import Answer, Ended, Peer, request
from tests.system.harness import DEADLINE, ROOT, Service, eventually, lines, mutated

GATED = ("tests.system.gated:app", "--app-dir", str(ROOT), "--no-access-log")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Ends what a test has begun, the last first."""
    with ExitStack() as stack:
        yield stack


Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path, stack: ExitStack) -> Start:
    """Starts the gated app with options of its own, and perhaps with its code broken."""

    def started(*options: str, workers: int = 2, changes: Sequence[tuple[str, str, str]] = ()) -> Service:
        environment = mutated(tmp_path, *changes) if changes else None
        service = Service(tmp_path, *GATED, *options, workers=workers, environment=environment)
        return stack.enter_context(service)

    return started


class Crowd:
    """Many clients with a connection each, asked all at once; an equal part of them at each of some workers."""

    def __init__(self, service: Service, stack: ExitStack, size: int, at: Collection[int] = ()) -> None:
        self.service = service
        self.peers: list[Peer] = []
        self.where: dict[Peer, int] = {}
        """The process that gave each its newest answer."""
        pids = at or _pids(service).values()
        for pid in pids:
            with _frozen([other for other in pids if other != pid]):
                part = [stack.enter_context(Peer(service.address())) for _ in range(size // len(pids))]
                self.peers += part
                for peer in part:
                    self.where[peer] = peer.get().pid

    def ask(self, path: str = "/") -> None:
        for peer in self.peers:
            with suppress(OSError):
                peer.send(request(path))

    def hear(self) -> list[Peer]:
        """Take an answer of each; those who got none, and they are no longer of the crowd."""
        lost = []
        for peer in self.peers:
            try:
                answer = peer.answer()
            except Ended:
                lost.append(peer)
                self.where.pop(peer, None)
            else:
                assert (answer.status, answer.closes) == (200, False), answer
                self.where[peer] = answer.pid
        self.peers = [peer for peer in self.peers if peer not in lost]
        return lost

    def turn(self, path: str = "/") -> list[Peer]:
        """Let each ask and be answered; those who were not."""
        self.ask(path)
        return self.hear()

    def join(self, other: Crowd) -> None:
        self.peers += other.peers
        self.where |= other.where

    def held_by(self, pid: int) -> list[Peer]:
        return [peer for peer in self.peers if self.where[peer] == pid]

    def begin(self, gate: str) -> None:
        """Have a request of each in progress until the gate is open."""
        self.ask(f"/wait?gate={gate}")
        eventually(lambda: self._classes() == {"in-progress": len(self.peers)}, "all of them are in progress")

    def end(self, gate: str) -> None:
        """Open the gate and take all answers."""
        (self.service.folder / gate).touch()
        assert not self.hear()

    def _classes(self) -> Counter[str]:
        return sum((Counter(w.classes) for w in self.service.workers()), Counter())


def _pids(service: Service, state: str = "serving") -> dict[str, int]:
    return {worker.id: worker.pid for worker in service.workers(state) if worker.pid is not None}


def _reload(service: Service) -> None:
    reload = service.reload()
    assert reload.returncode == 0, reload.stdout + reload.stderr


def _gone(service: Service, generation: int = 1) -> None:
    """Wait until a generation has left, sooner than any deadline of its classes: it has nothing to wait for."""
    eventually(lambda: generation not in service.generations(), f"generation {generation} leaves", deadline=5)


def _until_waiting(service: Service, count: int) -> None:
    eventually(lambda: service.status().crossing.waiting == count, f"{count} connections are in the queue")


@contextmanager
def _frozen(pids: Sequence[int]) -> Iterator[Callable[[int], None]]:
    """Stop processes until the end, or until what is given here is called with one of them."""

    def thaw(pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield thaw
    finally:
        for pid in pids:
            thaw(pid)


# The figures


def test_the_figures_add_up(start: Start, stack: ExitStack) -> None:
    """After three reloads with 20 connections 60 were given, as many adopted; none is in the queue, lost or closed.

    Or more: an old worker that has not heard of the cut-over yet may adopt what its fellow gives, and gives it on.
    `stillup status` says so, too.
    """
    service = start()
    crowd = Crowd(service, stack, 20)
    for generation in (1, 2, 3):
        _reload(service)
        _gone(service, generation)
        assert not crowd.turn()
    crossing = eventually(lambda: _complete(service.status().crossing, 60), "the figures of the last are in")
    assert crossing.waiting == 0
    assert (crossing.lost, crossing.closed) == (0, 0)
    assert crossing.capacity >= 256
    assert 0 < crossing.longest < 1
    text = service.cli("status").stdout
    (line,) = lines(text, "given")
    longest = f"longest pause {crossing.longest * 1000:.0f} ms"
    room = f"0 waiting (room for {crossing.capacity})"
    for figure in (f"{crossing.given} given", f"{crossing.adopted} adopted", room, "0 lost", "0 closed", longest):
        assert figure in line, text


def _complete(crossing: CrossingView, adopted: int) -> CrossingView | None:
    return crossing if crossing.given == crossing.adopted >= adopted else None


def test_status_says_what_an_old_worker_waits_for(start: Start, stack: ExitStack) -> None:
    """`stillup status` shows of each draining worker how many connections of which class it has, and since when."""
    service = start(workers=1)
    crowd = Crowd(service, stack, 3)
    crowd.begin("g")
    stack.callback((service.folder / "g").touch)
    _reload(service)

    def shown() -> bool:
        return any(lines(service.cli("status").stdout, "1.1", "draining", "3 in-progress for"))

    eventually(shown, "the text says what it waits for, and for how long", deadline=10)
    crowd.end("g")
    _gone(service)


# Workers that are killed


def test_an_old_worker_is_killed_in_its_drain(start: Start, stack: ExitStack) -> None:
    """Only those fail whom it still had: not those who have moved, nor those who are in the queue at that moment."""
    service = start()
    busy, idle = Crowd(service, stack, 40), Crowd(service, stack, 160)
    old = _pids(service)
    # The idle ones get something to do for as long as it takes to freeze the new workers.
    for crowd, gate in ((busy, "g"), (idle, "h")):
        crowd.ask(f"/wait?gate={gate}")
    eventually(lambda: sum(w.classes.get("in-progress", 0) for w in service.workers()) == 200, "all are busy")
    _reload(service)
    victim = old["1.1"]
    held = busy.held_by(victim)
    assert len(held) == 20
    with _frozen(list(_pids(service).values())):
        idle.end("h")
        _until_waiting(service, 160)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: victim not in _pids(service, "draining").values(), "it is dead")
        idle.ask()
    assert not idle.hear()
    (service.folder / "g").touch()
    lost = busy.hear()
    print(f"{len(held)} held by the victim, {len(lost)} of 200 failed")
    assert set(lost) <= set(held)
    _gone(service)
    for crowd in (idle, busy):
        assert not crowd.turn()
        assert set(crowd.where.values()) <= set(_pids(service).values())


def test_a_new_worker_is_killed_after_it_adopted(start: Start, stack: ExitStack) -> None:
    """Only those fail whom it had adopted; all others are answered, and its slot is filled again."""
    service = start()
    crowd = Crowd(service, stack, 200)
    _reload(service)
    _gone(service)
    crowd.join(Crowd(service, stack, 20))
    assert not crowd.turn()
    victim = _pids(service)["2.1"]
    held = crowd.held_by(victim)
    os.kill(victim, signal.SIGKILL)
    lost = crowd.turn()
    print(f"{len(held)} held by the victim, {len(lost)} of 220 failed")
    assert set(lost) <= set(held)
    _respawned(service, victim)
    assert not crowd.turn()


def _respawned(service: Service, victim: int) -> None:
    def look() -> bool:
        pids = _pids(service)
        return len(pids) == 2 and victim not in pids.values()

    eventually(look, "two workers serve again")


DIES_ADOPTING = (
    "host/sources.py",
    "        return self._understand(received)\n",
    """        import os, signal
        held = 0
        for name in os.listdir("/proc/self/fd") if os.path.exists("kill") else ():
            try:
                known = socket.socket(fileno=int(name))
            except OSError:
                continue
            try:
                known.getpeername()
                held += known.family == socket.AF_INET
            except OSError:
                pass
            known.detach()
        if held >= 40:
            os.rename("kill", "killed")
            with open("held", "w") as file:
                file.write(f"{os.getpid()} {held}")
            os.kill(os.getpid(), signal.SIGKILL)
        return self._understand(received)
""",
)
"""Whoever holds 40 connections, those just received included, and finds the file `kill`, dies with them."""


def test_a_new_worker_is_killed_while_it_adopts(start: Start, stack: ExitStack) -> None:
    """Killed between two packets it takes only those with it that it had; what is in the queue is served by others."""
    service = start(changes=[DIES_ADOPTING])
    crowd = Crowd(service, stack, 200)
    crowd.begin("g")
    _reload(service)
    new = _pids(service)
    with _frozen(list(new.values())) as thaw:
        crowd.end("g")
        _until_waiting(service, 200)
        _gone(service)
        (service.folder / "kill").touch()
        crowd.ask()
        thaw(new["2.1"])
        eventually(lambda: new["2.1"] not in _pids(service).values(), "it is dead")
        victim, held = map(int, (service.folder / "held").read_text().split())
        assert victim == new["2.1"]
        assert 40 <= held < 100, "nothing would be proven"
    # Some it may have answered before it died; those find out at their next request.
    lost = crowd.hear() + crowd.turn()
    print(f"{held} held by the victim, {len(lost)} of 200 failed")
    assert 0 < len(lost) <= held
    _respawned(service, victim)
    assert not crowd.turn()
    assert service.status().crossing.waiting == 0


def test_the_queue_waits_for_somebody_who_lives(start: Start, stack: ExitStack) -> None:
    """With every adopter dead, those in the queue are served by the workers that are started in their place."""
    service = start()
    crowd = Crowd(service, stack, 200)
    crowd.begin("g")
    _reload(service)
    new = list(_pids(service).values())
    with _frozen(new):
        crowd.end("g")
        _until_waiting(service, 200)
        _gone(service)
        crowd.ask()
        for pid in new:
            os.kill(pid, signal.SIGKILL)
    assert not crowd.hear()
    assert not set(crowd.where.values()) & set(new)


DIES_GIVING = (
    "worker/giving.py",
    "        self.given += len(infos)\n",
    """        import os, signal
        try:
            os.rename("kill", "killed")
        except FileNotFoundError:
            pass
        else:
            with open("given", "w") as file:
                file.write(f"{os.getpid()} {len(infos)}")
            os.kill(os.getpid(), signal.SIGKILL)
        self.given += len(infos)
""",
)
"""Whoever finds the file `kill` dies when it has given connections, and before it has let go of them."""


def test_an_old_worker_is_killed_while_it_gives(start: Start, stack: ExitStack) -> None:
    """What it has put into the queue a moment before is not lost, though the worker has a copy of it as it dies."""
    service = start(changes=[DIES_GIVING])
    crowd = Crowd(service, stack, 200)
    old = set(_pids(service).values())
    (service.folder / "kill").touch()
    _reload(service)
    _gone(service)
    victim, given = map(int, (service.folder / "given").read_text().split())
    assert victim in old
    held = len(crowd.held_by(victim)) - given
    lost = crowd.turn()
    print(f"{held} held by the victim, {len(lost)} of 200 failed")
    assert 0 < given < 100
    assert len(lost) <= held
    assert not crowd.turn()


def test_clients_that_leave_while_in_the_queue_cost_nobody_anything(start: Start, stack: ExitStack) -> None:
    """Those who close or reset a connection that is in the queue are dropped by who adopts it; the others go on."""
    service = start()
    crowd = Crowd(service, stack, 60)
    crowd.begin("g")
    _reload(service)
    with _frozen(list(_pids(service).values())):
        crowd.end("g")
        _until_waiting(service, 60)
        crowd.ask()
        for number in range(40):
            peer = crowd.peers.pop()
            if number % 2:
                peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.sock.close()
    assert not crowd.hear()
    eventually(lambda: sum(w.connections for w in service.workers()) == 20, "the rest is gone")
    assert not crowd.turn()
    assert service.status().crossing.lost == 0


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_app_sees_the_same_client(tmp_path: Path, stack: ExitStack, loop: str) -> None:
    """A connection's address is the same after it moved, and so is whether its X-Forwarded-For is trusted."""
    binds = ["127.0.0.1:0", f"unix:{tmp_path}/app.sock"]
    service = stack.enter_context(Service(tmp_path, *GATED, "--loop", loop, binds=binds))
    tcp, unix = (stack.enter_context(Peer(service.address(index))) for index in range(2))
    host, port = tcp.sock.getsockname()
    for generation in (1, 2):
        direct, proxied = tcp.get("/client"), unix.get("/client", "X-Forwarded-For: 192.0.2.7")
        assert direct.body.endswith(f" {(host, port)}")
        assert proxied.body.endswith(" ('192.0.2.7', 0)")
        assert (direct.generation, proxied.generation) == (generation, generation)
        if generation == 1:
            _reload(service)
            _gone(service)


DIES_ADMITTING = (
    "worker/server.py",
    "    async def _accept(self) -> None:\n",
    """    async def _accept(self) -> None:
        import os
        if self._session.welcome.generation == 3 and self._session.welcome.worker == 2:
            while not os.path.exists("die"):
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
""",
)
"""Worker 3.2 is told to accept, and dies of it when the file `die` exists."""


def test_a_generation_that_is_aborted_gives_back_what_it_took(start: Start, stack: ExitStack) -> None:
    """A worker has accepted and adopted; another dies before the cut-over: all go on with those who serve."""
    service = start("--drain-timeout", "60", changes=[DIES_ADMITTING])
    crowd = Crowd(service, stack, 40)
    crowd.begin("g")
    _reload(service)
    serving = _pids(service)
    with _frozen(list(serving.values())):
        service.client.reload()
        eventually(lambda: "3.1" in _pids(service), "3.1 accepts")
        adopter = _pids(service)["3.1"]
        fresh = Crowd(service, stack, 10, at=[adopter])
        crowd.end("g")
        _gone(service)
        assert not crowd.turn()
        assert {*crowd.where.values(), *fresh.where.values()} == {adopter}
        (service.folder / "die").touch()
        assert service.settled(2 + 1).outcome == "aborted"
        crowd.ask()
    assert not crowd.hear()
    _gone(service, 3)
    for held in (crowd, fresh):
        assert not held.turn()
        assert set(held.where.values()) <= set(serving.values())
    assert _pids(service) == serving


# Workers that leave without a reload


def test_scaling_down_moves_the_connections(start: Start, stack: ExitStack) -> None:
    """TTOU retires a worker; those whom it had go on with the one that stays."""
    service = start()
    crowd = Crowd(service, stack, 40)
    before = _pids(service)
    service.signal(signal.SIGTTOU)
    eventually(lambda: len(service.family()) == 1, "one worker", deadline=5)
    assert not crowd.turn()
    assert set(crowd.where.values()) == {before["1.1"]}


def test_a_worker_that_is_terminated_is_replaced_first(start: Start, stack: ExitStack) -> None:
    """SIGTERM to a worker brings another in its place, and only then it leaves: its connections have where to go."""
    service = start(workers=1)
    crowd = Crowd(service, stack, 40)
    (victim,) = _pids(service).values()
    os.kill(victim, signal.SIGTERM)

    def gone() -> bool:
        assert service.workers(), "at no time is nobody there to serve"
        assert not crowd.turn()
        return victim not in {process.pid for process in service.family()}

    eventually(gone, "it has left", deadline=10)
    assert not crowd.turn()
    assert set(crowd.where.values()) == set(_pids(service).values())
    assert victim not in crowd.where.values()


def test_recycling_closes_no_connection(start: Start, stack: ExitStack) -> None:
    """Six workers that are replaced after --limit-max-requests, under keep-alive load, fail and close nothing."""
    service = start("--limit-max-requests", "300")
    crowd = Crowd(service, stack, 30)
    seen: set[int] = set()

    def replaced() -> bool:
        assert not crowd.turn()
        seen.update(crowd.where.values())
        return len(seen) >= 2 + 6

    eventually(replaced, "six workers were replaced")
    crossing = service.status().crossing
    assert (crossing.lost, crossing.closed) == (0, 0)


HUNDRED = replace(
    MIXED,
    stream=0,  # endless answers are hurried when a reload has to wait for older generations
    think=0.05,
    pace=Pace(slow=0.1, upload=0.1, stream=0.1, early=0.05, silence=0.3),
)


def test_a_hundred_reloads_in_a_row(tmp_path: Path, stack: ExitStack) -> None:
    """A hundred reloads, each asked for at the cut-over of the one before, under load: nobody can tell.

    At no time are there more generations than two that drain, one that serves and one that boots.
    """
    options = ("--app-dir", str(ROOT), "--no-access-log", "--health-path", "/healthz")
    service = stack.enter_context(Service(tmp_path, "benchmarks.app:app", *options, workers=2))
    seen: Counter[tuple[str, ...]] = Counter()

    async def sample() -> None:
        while True:
            status = await asyncio.to_thread(service.status)
            seen[tuple(generation.state for generation in status.generations)] += 1
            await asyncio.sleep(0.05)

    async def prove() -> Report:
        control = Control(str(service.runtime))
        async with Load(Target.parse(service.address()), HUNDRED) as load, asyncio.TaskGroup() as group:
            await load.wait_every_client()
            sampling = group.create_task(sample())
            for number in range(2, 102):
                assert (await control.reload())["generation"] == number
            await load.every_kept_connection_answers("101", SOON)
            sampling.cancel()
            return await load.stop()

    began = time.monotonic()
    report = asyncio.run(prove())
    print(f"100 reloads in {time.monotonic() - began:.0f} s: {report}, {report.crossed} crossed; {dict(seen)}")
    demand_nothing_lost("100 reloads", report)
    assert all(tally.requests for tally in report.kinds.values())
    assert sum(seen.values()) > 100
    for states in seen:
        assert states.count("serving") == 1
        assert states.count("draining") <= 2
        assert len(states) <= 1 + 2 + 1, states
    crossing = service.status().crossing
    assert (crossing.lost, crossing.closed) == (0, 0)


# Limits


def test_nobody_is_turned_away_for_having_moved(start: Start, stack: ExitStack) -> None:
    """With as many connections as --limit-concurrency allows, those who move are answered, and not with 503."""
    service = start("--limit-concurrency", "12")
    crowd = Crowd(service, stack, 2 * 11)
    with Peer(service.address()) as one_more:
        assert one_more.get().status == 503
    for generation in (1, 2):
        _reload(service)
        for _ in range(3):
            # One after another: uvicorn counts requests that have just ended, so that many at once are turned away
            # without any reload.
            assert {peer.get().status for peer in crowd.peers} == {200}
        _gone(service, generation)


def test_an_idle_connection_is_not_kept_longer_for_having_moved(start: Start, stack: ExitStack) -> None:
    """Idle for about 3 s of 5 when it moves, it is closed about 2 s later: neither at once nor after 5 more."""
    service = start("--timeout-keep-alive", "5", workers=1)
    peer = stack.enter_context(Peer(service.address()))
    peer.get()
    answered = time.monotonic()
    assert not _readable(peer, until=answered + 2.5)
    _reload(service)
    _gone(service)
    moved = time.monotonic() - answered
    assert 2.5 < moved < 4.5, "nothing would be proven"
    assert not _readable(peer, until=answered + 4.8)
    assert service.status().crossing.given == 1
    assert _readable(peer, until=answered + 6)
    assert peer.ends()


def _readable(peer: Peer, until: float) -> bool:
    return bool(select.select([peer.sock], [], [], max(0.0, until - time.monotonic()))[0])


def test_a_process_that_the_app_forked_keeps_no_connection(start: Start, stack: ExitStack) -> None:
    """A child of the app that lives on has no copy of a connection: when the server closes it, its client sees that."""
    service = start(workers=1)
    stays, moves, forks = (stack.enter_context(Peer(service.address())) for _ in range(3))
    for peer in (stays, moves):
        peer.get()
    child = int(forks.get("/fork?gate=g").body)
    stack.callback((service.folder / "g").touch)
    eventually((service.folder / "g.reached").exists, "the child lives")
    stays.sock.settimeout(5)
    moves.sock.settimeout(5)
    assert stays.get("/", "Connection: close").generation == 1
    assert stays.ends()
    _reload(service)
    _gone(service)
    assert moves.get("/", "Connection: close").generation == 2
    assert moves.ends()
    assert psutil.pid_exists(child)


NOBODY = 12345
NOFILE = 256


def _python_of_anybody() -> list[str]:
    """What another user can run stillup with: the interpreter, and the environment that it needs."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    if not (shutil.which("setpriv") and shutil.which("prlimit")):
        pytest.skip("needs the commands setpriv and prlimit")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    path = ":".join([str(ROOT), *(entry for entry in sys.path if entry.endswith("site-packages"))])
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    limit = ["prlimit", f"--nofile={NOFILE}:{NOFILE}"]
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if os.path.islink(python) and python == sys.executable:
            python = os.path.realpath(python)  # noqa: PLW2901 - the link may lie where others can go, and lead where they cannot
        run = [*limit, *become, "env", f"PYTHONPATH={path}", python]
        code = "import os, sys, supervisor.worker, uvicorn, httptools; os.stat(sys.executable)"
        if subprocess.run([*run, "-c", code], capture_output=True, timeout=30, check=False).returncode == 0:
            return run
    pytest.skip(f"no {version} with our packages that another user can run")


def test_a_full_queue_makes_the_old_wait(stack: ExitStack) -> None:
    """An unprivileged user may have few descriptors in flight, and each process few open: nobody is closed for that.

    With 280 connections, more than the 256 that fit into the queue, the rest waits at the old workers.
    """
    python = _python_of_anybody()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stillup-")))
    os.chown(folder, NOBODY, NOBODY)
    service = Service(folder, *GATED, workers=2)
    service.argv = [*python, "-m", "supervisor", *service.argv[1:]]
    stack.enter_context(service)
    crowd = Crowd(service, stack, 280)
    crowd.begin("g")
    _reload(service)
    with _frozen(list(_pids(service).values())):
        crowd.end("g")

        def full() -> bool:
            status = service.status()
            left = sum(w.connections for w in service.workers("draining"))
            assert status.crossing.waiting <= NOFILE + 16
            return left > 0 and status.crossing.waiting + left == 280 and status.crossing.waiting > NOFILE - 16

        eventually(full, "the queue is full, and the rest waits")
        assert all(peer.is_open() for peer in crowd.peers)
        crowd.ask()
    assert not crowd.hear()
    _gone(service)
    assert not crowd.turn()
    crossing = service.status().crossing
    assert (crossing.lost, crossing.closed, crossing.waiting) == (0, 0, 0)
    assert crossing.capacity <= NOFILE


# The end


def _stop_with_a_queue(service: Service, stack: ExitStack, *, everybody: bool = False) -> list[Answer | None]:
    """Stop while 200 connections with a request on each are in the queue; what became of those requests.

    With ``everybody`` each process is sent SIGTERM, as service managers do.
    """
    crowd = Crowd(service, stack, 200)
    crowd.begin("g")
    _reload(service)
    with _frozen(list(_pids(service).values())):
        crowd.end("g")
        _until_waiting(service, 200)
        _gone(service)
        crowd.ask()
        for process in service.family() if everybody else ():
            process.terminate()
        service.signal(signal.SIGTERM)
        eventually(lambda: service.status().state == "stopping", "it stops")
    answers: list[Answer | None] = []
    for peer in crowd.peers:
        try:
            answers.append(peer.answer())
        except Ended:
            answers.append(None)
        else:
            assert peer.ends()
        peer.sock.close()
    assert service.process.wait(DEADLINE) == 0
    return answers


@pytest.mark.parametrize("everybody", [False, True], ids=["supervisor", "everybody"])
def test_a_stop_answers_what_is_in_the_queue(start: Start, stack: ExitStack, *, everybody: bool) -> None:
    """Requests that were sent by clients whose connections were in the queue at the final stop are answered.

    Whether SIGTERM comes to the supervisor alone, or to all its processes at the same time.
    """
    answers = _stop_with_a_queue(start(), stack, everybody=everybody)
    assert [answer for answer in answers if answer is None] == []
    assert all(answer is not None and answer.status == 200 and answer.closes for answer in answers)


READER_FIRST = (
    "worker/server.py",
    "        if not drain.final or not self._acceptors:\n",
    "        if True:\n",
)


def test_a_reader_that_leaves_too_early_is_found_out(start: Start, stack: ExitStack) -> None:
    """The same stop loses requests if the workers do not read the queue to its end."""
    answers = _stop_with_a_queue(start(changes=[READER_FIRST]), stack)
    assert None in answers
