"""When descriptors or processes run out: what serves goes on, and all goes on as soon as there are more.

Limits are set with prlimit(2) on processes that run. Nothing may spin meanwhile: processor time is measured.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stillup.daemon.control.control_server import SPARE
from tests.system.harness import DEADLINE, Service, alone, connect, descriptors, eventually, open_socket

NOBODY = 20_000 + os.getpid() % 40_000
"""A user of our own: processes are counted by user."""


@contextlib.contextmanager
def descriptors_left(pid: int, free: int) -> Iterator[None]:
    """Let a process have so many descriptors more than it has: the kernel gives out the lowest below the limit."""
    process = psutil.Process(pid)
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    used = descriptors(pid)
    unused = (number for number in itertools.count() if str(number) not in used)
    process.rlimit(psutil.RLIMIT_NOFILE, (next(itertools.islice(unused, free, None)), before[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def no_process_left(pid: int) -> Iterator[None]:
    """Let a process of NOBODY's start no other, and no thread. Root of a container may have no right to."""
    soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    limit = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "prlimit", f"--pid={pid}"]
    subprocess.run([*limit, "--nproc=1:"], check=True)
    try:
        yield
    finally:
        subprocess.run([*limit, f"--nproc={soft if soft != resource.RLIM_INFINITY else 'unlimited'}:"], check=True)


@contextlib.contextmanager
def at_ease(*pids: int) -> Iterator[None]:
    """Fails if the processes use more than a fifth of the time for computing."""
    processes = [psutil.Process(pid) for pid in pids]

    def computed() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    began, before = time.monotonic(), computed()
    yield
    share = (computed() - before) / (time.monotonic() - began)
    assert share < 0.2, f"{share:.0%} of the processor"


def at_rest(service: Service) -> int:
    """How many descriptors the supervisor has once nobody calls, boots or leaves."""
    eventually(lambda: len(service.generations()) == 1, "one generation")
    return len(descriptors(alone(service)))


def nothing_more(service: Service, before: int) -> None:
    """Wait until it has as many again: some are closed a moment after the end of what they were for is known."""
    eventually(lambda: at_rest(service) <= before, "no descriptor more than before")


def talk(client: http.client.HTTPConnection) -> str:
    client.request("GET", "/")
    response = client.getresponse()
    body = response.read().decode()
    assert response.status == 200, body
    return body


def count(service: Service, words: str) -> int:
    return service.log().count(words)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    # Kept alive for longer than a slow machine takes for one test.
    service = Service(tmp_path, "main:app", "--timeout-keep-alive", "60", workers=2)
    service.write()
    with service:
        yield service


def test_a_supervisor_without_descriptors(service: Service) -> None:
    """What serves goes on, status answers, a reload is aborted with the reason, and nothing spins; then all goes on.

    SIGTERM stops it all the same.
    """
    supervisor = service.process.pid
    client = connect(service.address())
    before = talk(client)
    with descriptors_left(alone(service), 0):
        assert service.cli("status").returncode == 0
        reload = service.reload()
        assert reload.returncode == 1
        # It cannot be written down; or there is one descriptor, that of the call before, and no pipe for a worker.
        assert "Too many open files" in reload.stdout + reload.stderr
        callers = [open_socket(f"unix:{service.runtime}/control.sock") for _ in range(SPARE + 1)]
        with at_ease(supervisor):
            tries = count(service, "cannot accept: Too many open files")
            eventually(
                lambda: count(service, "cannot accept: Too many open files") > tries + 3, "nobody more is let in"
            )
            assert talk(client) == before
        for caller in callers:
            caller.close()
        assert service.cli("status").returncode == 0
    service.client.reload(wait="cut-over")
    newest = f"{service.generations()[-1]} "
    eventually(lambda: talk(client).startswith(newest), "its connection has moved to the new generation")
    client.close()
    with contextlib.suppress(psutil.NoSuchProcess), descriptors_left(alone(service), 0):
        service.signal(signal.SIGTERM)  # a stop by the API would have to be looked at, whose it is
        assert service.process.wait(DEADLINE) == 0


@pytest.mark.parametrize("template", ["--template", "--no-template"])
def test_a_reload_with_too_few_descriptors(template: str, tmp_path: Path) -> None:
    """However far a reload comes with few descriptors, it says why it goes no further, and leaves none of them open."""
    service = Service(tmp_path, "main:app", template, binds=[f"{name}=127.0.0.1:0" for name in "abcdefgh"])
    service.write()
    failed = []
    with service:
        # With another limit there is another template, of which two are kept.
        before = at_rest(service) + 2 * (template == "--template")
        for free in itertools.count(1, step=2):
            with descriptors_left(alone(service), free):
                reload = service.reload()
            if reload.returncode == 0:
                break
            failed.append(reload.stdout + reload.stderr)
            assert "Too many open files" in failed[-1], failed[-1]
            assert service.get().startswith("1 ")
            nothing_more(service, before)
        nothing_more(service, before)
    for why in ("no pipe for its output", "listeners cannot be copied"):
        assert any(why in text for text in failed), (why, failed)


HELD = """
import os, time
while "STILLUP_NONCE" in os.environ and os.path.exists("held"):
    time.sleep(0.01)
"""
"""As sitecustomize.py: keeps a worker from its first word until a file has gone."""


def test_a_worker_that_cannot_be_let_in(tmp_path: Path) -> None:
    """A reload whose worker comes when it cannot be accepted any more is aborted at once, with the reason."""
    places = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    service = Service(tmp_path, "main:app", "--no-template", environment={"PYTHONPATH": os.pathsep.join(places)})
    service.write()
    service.write(HELD, name="sitecustomize.py")
    with service:
        before = at_rest(service)
        (tmp_path / "held").touch()
        rollout = service.client.reload()
        eventually(lambda: service.status().generations[-1].workers[0].pid, "its process")
        with descriptors_left(alone(service), 0):
            (tmp_path / "held").unlink()
            # Who asked would give back a spare descriptor each time, and the worker might have that.
            eventually(lambda: "gen 2 rejected" in service.log(), "it is aborted")
        view = service.settled(rollout.id)
        assert view.failure is not None
        assert (view.reason, view.failure.message) == ("hello", "it cannot be let in: Too many open files")
        nothing_more(service, before)
        service.client.reload(wait="cut-over")


def test_a_respawn_without_descriptors(service: Service) -> None:
    """A worker that dies when it cannot be replaced is tried again, later each time, until there are descriptors."""
    victim = service.workers()[0].pid
    with descriptors_left(alone(service), 0):
        psutil.Process(victim).kill()
        eventually(lambda: count(service, "died young 2 times in a row; next start in 1.5 s"), "it is tried again")
        assert "(pid None)" not in service.log()
        service.get()
    eventually(lambda: len(service.workers()) == 2, "two workers")


def test_a_worker_without_descriptors(service: Service) -> None:
    """It takes nobody, new or from another worker, and loses none: all wait, nothing spins, and then it serves them."""
    full, other = service.workers()
    assert full.pid is not None
    with contextlib.ExitStack() as stack:
        with descriptors_left(full.pid, 0):
            clients = [stack.enter_context(contextlib.closing(connect(service.address()))) for _ in range(100)]
            assert {talk(client).split()[1] for client in clients} == {str(other.pid)}
            service.client.scale(1)
            with at_ease(service.process.pid, full.pid):
                eventually(lambda: service.status().crossing.waiting, "some wait")
                newcomer = stack.enter_context(contextlib.closing(connect(service.address())))
                newcomer.request("GET", "/")
                tries = count(service, "cannot accept: Too many open files")
                eventually(
                    lambda: count(service, "cannot accept: Too many open files") > tries + 3, "it tries, now and then"
                )
        assert newcomer.getresponse().read().decode().split()[1] == str(full.pid)
        assert {talk(client).split()[1] for client in clients} == {str(full.pid)}
    crossing = service.status().crossing
    assert (crossing.lost, crossing.closed) == (0, 0)


def test_too_few_descriptors_to_take_over(tmp_path: Path) -> None:
    """With a limit that leaves a worker no room to take connections over, the start says so."""
    service = Service(tmp_path, wait=False)
    service.argv = ["prlimit", "--nofile=70", *service.argv]
    service.write()
    with service:
        assert service.process.wait(20) == 1
    assert "too few to take connections over: RLIMIT_NOFILE is 70" in service.log()


def test_too_few_descriptors_to_start(tmp_path: Path) -> None:
    """With a limit at which the supervisor cannot open what it needs it says so in one line."""
    service = Service(tmp_path, wait=False)
    service.argv = ["prlimit", "--nofile=8", *service.argv]
    service.write()
    with service:
        assert service.process.wait(20) == 1
    assert "Too many open files" in service.log()
    assert len(service.log().splitlines()) == 1, service.log()


@pytest.fixture
def unprivileged() -> Iterator[Service]:
    """A service of a user of its own, in a folder that this user can reach."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else, whose processes are counted")
    folder = Path(tempfile.mkdtemp(prefix="stillup-"))
    service = Service(folder, workers=2)
    # Our interpreter may be where only root may look.
    look = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    service.argv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *look, *service.argv]
    service.write()
    os.chown(folder, NOBODY, NOBODY)
    try:
        with service:
            yield service
    finally:
        shutil.rmtree(folder)


def test_a_supervisor_that_can_start_no_process(unprivileged: Service) -> None:
    """At a limit of processes a reload says so and changes nothing, and a respawn is tried again, later each time."""
    service = unprivileged
    with no_process_left(service.process.pid):
        reload = service.reload()
        assert (reload.returncode, "can't start new thread (a limit of processes" in reload.stderr) == (1, True), reload
    service.client.reload(wait="cut-over")  # there is a thread now
    before = at_rest(service)
    with no_process_left(service.process.pid):

        def no_process() -> bool:
            reload = service.reload()
            assert reload.returncode == 1
            nothing_more(service, before)
            if "can't start new thread (a limit of processes" in reload.stderr:  # there was work for two at that moment
                return False
            assert "Resource temporarily unavailable (a limit of processes" in reload.stdout, reload.stdout
            return True

        for _ in range(2):
            eventually(no_process, "a reload for which there is a thread, and no process")
        victim = service.workers()[0].pid
        with at_ease(service.process.pid):
            psutil.Process(victim).kill()
            eventually(lambda: count(service, "died young 3 times in a row"), "it is tried again")
            service.get()
    eventually(lambda: len(service.workers()) == 2, "two workers")
    nothing_more(service, before)
