"""``--preload``: the app is imported once a generation, by what its workers are forked from; or by each worker.

Whatever becomes of the process that imports it, the service serves.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.system.gated_service import reloaded
from tests.system.harness import APP, Service, eventually, older_interpreter, pids
from tests.system.worker_facts import facts

BROKEN = "import nosuch\n"
HANGS = "import time\nprint('here it hangs', flush=True)\ntime.sleep(600)\n"
COUNTS = "import pathlib\nwith pathlib.Path('imports').open('a') as file: print(os.getpid(), file=file)\n"


@pytest.fixture(scope="module")
def preloading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("preloading"), "main:app", "--preload", "--boot-timeout", "30", workers=2)
    service.tracebacks_expected = True
    service.write()
    with service:
        yield service


def births(service: Service) -> set[str | None]:
    return {worker.birth for worker in service.workers()}


def preloader(service: Service) -> psutil.Process:
    """The one that there is."""
    (one,) = service.preloaders()
    return one


def brought(service: Service) -> int:
    """Have a new generation serve alone; its number."""
    reloaded(service)
    (generation,) = service.generations()
    return generation


def write(service: Service, before: str, version: str = "v1") -> None:
    """Have the app do that when it is imported."""
    service.write(f"import os\n{before}{APP}", version)


def test_a_preloaded_worker_is_what_a_started_one_is(tmp_path: Path) -> None:
    """In all that a process can find out about itself, and that others see of it."""
    preloaded, started = facts(tmp_path, "--preload"), facts(tmp_path, "--no-template")
    for one in (preloaded, started):  # a library may open what it has but once a process, such as uvloop, earlier
        one["files"] = sorted(one["files"].values())
    assert preloaded == {**started, "memory of the template": 0}


def test_the_app_is_imported_once(preloading: Service) -> None:
    """By a process that stays as long as the generation, and of which those workers come that replace others, too."""
    write(preloading, COUNTS)
    reloaded(preloading)
    assert births(preloading) == {"preloaded"}
    first = preloader(preloading)
    killed = pids(preloading)
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not set(killed.values()) & set(pids(preloading).values()), "others serve")
    eventually(lambda: len(preloading.workers()) == 2, "both")
    assert births(preloading) == {"preloaded"}
    assert (preloading.folder / "imports").read_text() == f"{first.pid}\n"
    reloaded(preloading)
    eventually(lambda: not first.is_running(), "it goes with its generation")
    assert len(preloading.preloaders()) == 1


@pytest.mark.parametrize(
    ("does", "why"),
    [
        (
            "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
            "the thread Thread-1",
        ),
        (
            "from concurrent.futures import ThreadPoolExecutor; pool = ThreadPoolExecutor(2); pool.submit(int)",
            "the thread",
        ),
        ("import queue, logging.handlers as h; h.QueueListener(queue.Queue()).start()", "the thread"),
        ("import subprocess; child = subprocess.Popen(['sleep', '60'])", "the child process"),
        ("import multiprocessing as m; manager = m.get_context('spawn').Manager()", "the child process"),
        ("import socket; server = socket.create_server(('127.0.0.1', 0))", "a listening socket"),
        ("import socket; pair = socket.socketpair()", "a socket (unnamed)"),
        ("import sqlite3; db = sqlite3.connect('x.db'); db.execute('create table if not exists t (n)')", "x.db"),
        ("import fcntl; lock = open('lock', 'w'); fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)", "a lock on"),
        (
            "import asyncio; task = asyncio.get_running_loop().create_task(asyncio.sleep(60), name='tick')",
            "the task tick",
        ),
        ("import asyncio; loop = asyncio.get_running_loop()", "the event loop of the import"),
        ("import asyncio; loop = asyncio.new_event_loop()", "eventpoll"),
        ("from stillup.app import current; me = current()", "current() was called"),
    ],
    ids=[
        *(
            "thread",
            "executor",
            "log-queue",
            "child",
            "manager",
            "server",
            "pair",
            "sqlite",
            "lock",
            "task",
            "kept-loop",
        ),
        *("new-loop", "current"),
    ],
)
def test_what_cannot_be_forked(does: str, why: str, preloading: Service) -> None:
    """It is named, once, and each worker imports the app by itself."""
    write(preloading, f"{does}\n", version="v2")
    if "flock" in does:  # which the second worker would not have, either
        preloading.client.scale(1, wait="drained")
    generation = brought(preloading)
    assert births(preloading) == {"forked"}
    preloading.logged("WARNING", f"gen {generation} is not preloaded, each of its workers imports the app: ", why)
    assert preloading.log().count(f"gen {generation} is not preloaded") == 1
    assert preloading.get().split()[::2] == [str(generation), "v2"]
    eventually(lambda: not preloading.preloaders(), "nobody is left to fork from")
    write(preloading, "")
    reloaded(preloading)
    preloading.client.scale(2, wait="drained")
    assert births(preloading) == {"preloaded"}


@pytest.mark.parametrize(
    "does",
    [
        "from concurrent.futures import ThreadPoolExecutor; pool = ThreadPoolExecutor(2)",
        "import asyncio; lock, queue, event = asyncio.Lock(), asyncio.Queue(), asyncio.Event()",
        "import socket; log = socket.socket(type=socket.SOCK_DGRAM); log.connect(('127.0.0.1', 9))",
        "import multiprocessing as m; lock = m.get_context('fork').Lock()",
        "import logging; logging.basicConfig(level='DEBUG'); logging.getLogger('shop').info('imported')",
        "import sqlite3; db = sqlite3.connect('y.db'); db.execute('create table if not exists t (n)'); db.close()",
        "import atexit; atexit.register(int)",
        "import sys; sys.stdout = None",
    ],
    ids=["pool", "asyncio", "datagram", "semaphore", "logging", "closed-sqlite", "atexit", "no-stdout"],
)
def test_what_can_be_forked(does: str, preloading: Service) -> None:
    """An app that does that when it is imported is preloaded, and serves."""
    write(preloading, f"{does}\n", version="v3")
    generation = brought(preloading)
    assert births(preloading) == {"preloaded"}
    assert preloading.get().split()[::2] == [str(generation), "v3"]


def test_a_broken_release_is_rejected(preloading: Service) -> None:
    """As it is without: with the stage, the error, and the traceback of the import."""
    write(preloading, BROKEN)
    rollout = preloading.settled(preloading.client.reload().id)
    assert (rollout.outcome, rollout.reason) == ("aborted", "import")
    assert rollout.failure is not None
    assert "ModuleNotFoundError: No module named 'nosuch'" in rollout.failure.message
    assert "Traceback" in rollout.failure.output
    assert "import nosuch" in rollout.failure.output
    eventually(lambda: len(preloading.preloaders()) == 1, "that of the generation that serves")


def test_an_import_that_ends_its_process(preloading: Service) -> None:
    """Is a failure of the import, too."""
    write(preloading, "os._exit(7)\n")
    rollout = preloading.settled(preloading.client.reload().id)
    assert (rollout.outcome, rollout.reason) == ("aborted", "import")
    assert rollout.failure is not None
    assert rollout.failure.message == "importing the app, its preloader exited 7"


def test_an_import_that_hangs_is_called_off(preloading: Service) -> None:
    """What serves does; the preloader ends with the rollout."""
    write(preloading, HANGS)
    rollout = preloading.client.reload()
    preloading.logged("here it hangs")
    hanging = next(one for one in preloading.preloaders() if f":{rollout.generation}." in one.cmdline()[-1])
    preloading.client.abort()
    assert preloading.settled(rollout.id).reason == "called-off"
    eventually(lambda: not hanging.is_running(), "it has ended")
    write(preloading, "")
    reloaded(preloading)


def test_an_import_that_hangs_until_its_deadline(tmp_path: Path) -> None:
    """It says where it hangs, and the rollout is rejected as ever."""
    service = Service(tmp_path, "main:app", "--preload", "--boot-timeout", "4")
    service.tracebacks_expected = True
    service.write()
    with service:
        write(service, HANGS)
        rollout = service.settled(service.client.reload().id)
        assert (rollout.outcome, rollout.reason) == ("aborted", "boot")
        assert rollout.failure is not None
        assert 'main.py", line 4 in <module>' in rollout.failure.output
        eventually(lambda: len(service.preloaders()) == 1, "that of the generation that serves")
        assert service.get().startswith("1 ")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_comes_without_its_preloader(number: signal.Signals, preloading: Service) -> None:
    """If that is killed there is another; if it is stopped, one worker imports the app, and the next has another."""
    write(preloading, "")
    reloaded(preloading)
    first = preloader(preloading)
    first.send_signal(number)
    if number == signal.SIGKILL:
        eventually(lambda: first not in preloading.descendants(), "it is reaped")

    def die(slot: int) -> str | None:
        """How the one came to be that takes the place of a worker."""
        name = f"{preloading.generations()[-1]}.{slot}"
        killed = pids(preloading)[name]
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: pids(preloading).get(name) not in (killed, None), "another is there")
        eventually(lambda: len(preloading.workers()) == 2, "and serves")
        return next(worker.birth for worker in preloading.workers() if worker.id == name)

    assert die(1) == ("preloaded" if number == signal.SIGKILL else "forked")
    eventually(lambda: first not in preloading.descendants(), "it is not left")
    assert die(2) == "preloaded"


def test_it_ends_with_its_supervisor(tmp_path: Path) -> None:
    """Killed, or replaced by its next program; in the middle of an import, too. The workers serve on."""
    service = Service(tmp_path, "main:app", "--preload")
    service.write()
    with service:
        first = preloader(service)
        workers = pids(service)
        service.signal(signal.SIGUSR2)
        service.reexecuted(1)
        eventually(lambda: first not in service.descendants(), "the old program's has ended")
        assert pids(service) == workers
        reloaded(service)
        second = preloader(service)
        write(service, HANGS)
        service.client.reload()
        service.logged("here it hangs")
        both = service.preloaders()
        assert len(both) == 2
        service.signal(signal.SIGKILL)
        service.process.wait()
        eventually(lambda: not any(one.is_running() for one in (second, *both)), "they have ended")
        service.write()
        service.start()
        reloaded(service)
        assert births(service) == {"preloaded"}


def test_an_interpreter_without_preloaders(tmp_path: Path) -> None:
    """A release whose stillup knows of none has each worker import the app, and it is said."""
    python = older_interpreter(tmp_path, "STILLUP_PRELOADER")
    service = Service(tmp_path, "main:app", "--python", python, "--preload", "--no-template")
    service.write()
    with service:
        service.logged(
            "WARNING", "is not preloaded", "its interpreter has no preloader, but another stillup: it exited 2"
        )
        assert births(service) == {"spawned"}


def test_no_template(tmp_path: Path) -> None:
    """A preloader needs none."""
    service = Service(tmp_path, "main:app", "--preload", "--no-template", workers=2)
    service.write()
    with service:
        assert births(service) == {"preloaded"}
        assert not service.templates()
        eventually(partial(_serves, service), "both workers answer")


def _serves(service: Service) -> bool:
    return {service.get().split()[1] for _ in range(20)} == {str(pid) for pid in pids(service).values()}


def test_what_it_prints(preloading: Service) -> None:
    """What an import prints is in the log once, by the preloader's name; what a worker prints by the worker's."""
    write(preloading, "print('it is imported')\n")
    generation = brought(preloading)
    said = preloading.logged("it is imported")
    assert f"{generation}.preload" in said
    assert preloading.log().count("it is imported") == 1


ASKS = """
import pathlib, subprocess, sys
from stillup.client import Client
try:
    Client(RUNTIME).scale(1)
    said = "0"
except Exception as error:
    said = str(error)
words = [sys.executable, "-m", "stillup", "scale", "1", "--runtime-dir", RUNTIME]
done = subprocess.run(words, capture_output=True, text=True)
pathlib.Path("asked").write_text(f"{said}\\n{done.returncode} {done.stderr}")
"""


def test_the_control_socket_is_not_for_it(preloading: Service) -> None:
    """Neither for the process that imports the app, nor for what that starts."""
    write(preloading, ASKS.replace("RUNTIME", repr(str(preloading.runtime))))
    brought(preloading)
    assert births(preloading) == {"preloaded"}
    itself, child = (preloading.folder / "asked").read_text().splitlines()[:2]
    assert "worker of this service" in itself
    assert child.startswith("4 ")
    assert "worker of this service" in child


FORKS = """
import os, pathlib, signal, time
if os.fork() == 0:
    os.setsid()
    signal.pause()
    os._exit(0)
print("here it hangs", os.getpid(), flush=True)
time.sleep(600)
"""


def test_a_fork_of_it_that_lives_on(preloading: Service) -> None:
    """It holds the socket of its parent, so that nothing tells of that one's end but its process; reloads go on."""
    write(preloading, FORKS)
    rollout = preloading.client.reload()
    preloading.logged(f"{rollout.generation}.preload", "here it hangs")
    (hanging,) = (
        one for one in preloading.preloaders() if f":{rollout.generation}." in one.cmdline()[-1] and one.children()
    )
    (child,) = hanging.children()
    preloading.client.abort()
    assert preloading.settled(rollout.id).reason == "called-off"
    eventually(lambda: not hanging.is_running(), "it has ended")
    write(preloading, "")
    for _ in range(3):
        reloaded(preloading)
        assert births(preloading) == {"preloaded"}
    child.kill()
    eventually(lambda: not child.is_running(), "it is reaped")
