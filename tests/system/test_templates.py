"""Workers that are forked from a template: each is what it would be if it were started, and nothing depends on that."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.system.gated_service import reloaded
from tests.system.harness import APP, Service, alone, descriptors, eventually, older_interpreter, pids
from tests.system.worker_facts import facts


def template(service: Service) -> psutil.Process | None:
    """The one that is there."""
    return next(iter(service.templates()), None)


@pytest.fixture
def forking(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, "main:app", "--env-file", "env", workers=2)
    (tmp_path / "env").write_text("COLOR=green\n")
    (tmp_path / "stillup.toml").write_text("template = true\n")
    service.write()
    with service:
        yield service


def test_a_forked_worker_is_what_a_started_one_is(tmp_path: Path) -> None:
    """In all that a process can find out about itself, and that others see of it."""
    forked, started = facts(tmp_path), facts(tmp_path, "--no-template")
    assert forked == {**started, "memory of the template": 0}
    assert forked["parent is the supervisor"]
    assert forked["argv"][2][-2] == "shop:1.1"


def test_it_stays_over_reloads(forking: Service) -> None:
    """One template forks every worker, none of which it leaves behind, until what they have in common changes."""
    first = template(forking)
    assert first is not None
    assert {worker.birth for worker in forking.workers()} == {"forked"}
    for _ in range(3):
        reloaded(forking)
    assert template(forking) == first
    assert not first.children()
    open_here = descriptors(alone(forking))
    reloaded(forking)
    assert len(descriptors(alone(forking))) == len(open_here)
    (forking.folder / "env").write_text("COLOR=red\n")
    reloaded(forking)
    colors = [psutil.Process(pid).environ()["COLOR"] for pid in pids(forking).values()]
    assert colors == ["red", "red"]
    assert len(forking.templates()) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_the_next_reload_works_without_it(number: signal.Signals, forking: Service) -> None:
    """If it is killed, another is made; if it is stopped, workers are started one by one, and it is said."""
    first = template(forking)
    assert first is not None
    first.send_signal(number)
    if number != signal.SIGSTOP:
        eventually(lambda: not first.is_running() or first.status() == psutil.STATUS_ZOMBIE, "it has ended")
    reloaded(forking)
    assert forking.get().endswith("v1")
    if number == signal.SIGSTOP:
        assert template(forking) is None
        forking.logged("WARNING", "workers are started one by one, as none can be forked: ")
    else:
        assert template(forking) not in (None, first)
    eventually(lambda: first not in forking.descendants(), "it is reaped")


def test_what_is_on_the_disk_is_what_runs(tmp_path: Path) -> None:
    """Something is installed where imports are looked for: the next worker is of a template that has looked again."""
    packages = tmp_path / "packages"
    packages.mkdir()
    service = Service(tmp_path, "main:app", environment={"PYTHONPATH": os.pathsep.join([str(packages), *sys.path[1:]])})
    service.write()
    with service:
        first = template(service)
        (packages / "installed.py").write_text("VERSION = 1\n")
        reloaded(service)
        assert template(service) not in (None, first)


def test_an_interpreter_without_templates(tmp_path: Path) -> None:
    """A release whose stillup knows of none has its workers started, and the reason is in the log."""
    python = older_interpreter(tmp_path, "STILLUP_TEMPLATE_IMPORTS")
    service = Service(tmp_path, "main:app", "--python", python)
    service.write()
    with service:
        reloaded(service)
        assert template(service) is None
        service.logged("WARNING", "a template: it has ended: too old")
        assert {worker.birth for worker in service.workers()} == {"spawned"}
        assert service.log().count("workers are started one by one") == 1


@pytest.mark.parametrize("said", ["true", "false"])
def test_the_variable_of_the_option(said: str, tmp_path: Path) -> None:
    """It is in the workers' environment, too, where it makes none of them a template."""
    service = Service(tmp_path, "main:app", environment={"STILLUP_TEMPLATE": said})
    service.write()
    with service:
        assert (template(service) is not None) == (said == "true")
        assert [psutil.Process(pid).environ()["STILLUP_TEMPLATE"] for pid in pids(service).values()] == [said]


def test_it_ends_with_its_supervisor(forking: Service) -> None:
    """Killed, or replaced by its next program, which makes its own; the workers serve on."""
    first = template(forking)
    assert first is not None
    workers = pids(forking)
    forking.signal(signal.SIGUSR2)
    forking.reexecuted(1)
    eventually(lambda: first not in forking.descendants(), "the old program's template has ended")
    assert pids(forking) == workers
    reloaded(forking)
    second = template(forking)
    assert second is not None
    forking.signal(signal.SIGKILL)
    forking.process.wait()
    eventually(lambda: not second.is_running(), "it has ended")
    forking.start()
    reloaded(forking)
    assert template(forking) is not None


def test_a_killed_one_hides_no_orphan(forking: Service) -> None:
    """It is reaped by itself, long before the next worker is forked; so is whatever else ends below the supervisor."""
    first = template(forking)
    assert first is not None
    first.kill()
    eventually(lambda: first not in forking.descendants(), "it is reaped")


def test_a_module_with_a_thread_cannot_be_warm(tmp_path: Path) -> None:
    """It is named, and the workers are started one by one."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "busy.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    service = Service(tmp_path, "main:app", "--warm", "busy", environment={"PYTHONPATH": str(packages)})
    service.write()
    with service:
        service.logged("WARNING", "--warm busy: a thread runs once it is imported, so that no worker can be forked")
        said = service.logged("WARNING", "workers are started one by one")
        assert said.endswith("as none can be forked: a template: it has more than one thread")
        assert template(service) is None


def test_none_stays_that_is_of_no_use(forking: Service) -> None:
    """After a reload with --no-template nothing is there to fork from."""
    assert template(forking) is not None
    (forking.folder / "stillup.toml").write_text("template = false\n")
    reloaded(forking)
    eventually(lambda: template(forking) is None, "it has ended")


def test_warm(tmp_path: Path) -> None:
    """What a template imports beside is there before the app is; what it cannot import is said, and changes nothing."""
    service = Service(tmp_path, "main:app", "--warm", "decimal,nosuch.module")
    found = "import sys\nFOUND = str('decimal' in sys.modules)\n"
    service.write(found + APP.replace('f"{GENERATION} {os.getpid()} VERSION"', "FOUND"))
    with service:
        assert service.get() == "True"
        service.logged("WARNING", "--warm nosuch.module: ModuleNotFoundError: No module named 'nosuch'")
