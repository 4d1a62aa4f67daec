"""A hook that does not come to its end by itself: another reload, an abort, a stop, a supervisor that dies."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from stillup.client import ProblemError
from tests.system.harness import FULL, eventually, in_order, lines
from tests.system.hooks.hooked_service import Command, Hooked, HookedService, is_gone, program
from tests.system.mutations import RUNS_HOOKS_BESIDE_EACH_OTHER, mutated
from tests.system.steady_load import Traffic

MIGRATE = program("migrate")


def migrating(hooked: Hooked, **others: object) -> tuple[HookedService, int]:
    """A service whose reload waits for its hook; the pid of that."""
    service = hooked(**others)
    service.configure(before=MIGRATE)
    service.client.reload()
    return service, service.until_begun(1)


def freeze(pid: int) -> None:
    """Stop a process, which then takes no SIGTERM."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "it stands still")


def test_two_reloads_at_once(hooked: Hooked) -> None:
    """The second takes the first one's place: its hook runs when the first one's has gone; the first exits with 5."""
    service = hooked()
    service.configure(before=MIGRATE)
    with Traffic(service.address()) as traffic:
        first = Command(service, "reload")
        pid = service.until_begun(1)
        second = Command(service, "reload")
        service.until_begun(2)
        assert is_gone(pid)
        service.let_end("migrate")
        assert first.ended().returncode == 5
        done = second.ended()
        assert done.returncode == 0, done.stdout
        traffic.moves_to({worker.pid for worker in service.workers() if worker.pid is not None})
    assert [generation for _, _, generation in service.begun()] == [2, 3]
    (failed,) = eventually(lambda: service.events_of("hook.failed"), "it is told")
    assert failed["reason"] == "superseded"
    assert not list(lines(service.log(), "ERROR"))


def test_one_beside_another_would_be_seen(hooked: Hooked, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the tests here rely on can fail: where two are let run, the second one says so."""
    path = mutated(tmp_path_factory.mktemp("copy"), *RUNS_HOOKS_BESIDE_EACH_OTHER)["PYTHONPATH"]
    service, pid = migrating(hooked, path=path)
    freeze(pid)
    service.ran_beside = True
    service.client.reload()
    service.until_begun(2)
    os.kill(pid, signal.SIGKILL)
    service.let_end("migrate")


def test_an_abort(hooked: Hooked) -> None:
    """It ends the hook, and says so; the old generation never notices, and the next reload's hook runs."""
    service, pid = migrating(hooked)
    with Traffic(service.address()) as traffic:
        assert service.cli("abort").returncode == 0
        eventually(lambda: is_gone(pid), "the hook has gone")
        eventually(lambda: service.status().hook is None, "it is known to have")
        assert (service.client.rollout(2).reason, service.generations()) == ("called-off", [1])
        service.let_end("migrate")
        assert service.reload().returncode == 0
        traffic.goes_on()
    assert [generation for _, _, generation in service.begun()] == [2, 3]


def test_what_is_seen_while_it_runs(hooked: Hooked) -> None:
    """``status`` has it with its pid and its deadline, ``reload`` says every few seconds that it is waited for."""
    service = hooked()
    service.configure(before=MIGRATE, hook_timeout=500)
    reload = Command(service, "reload")
    pid = service.until_begun(1)
    line = next(lines(service.cli("status").stdout, "  hook "))
    assert f"program.py migrate, before gen 2: pid {pid}, for " in line
    assert "; at most " in line
    eventually(lambda: (hook := service.status().hook) and hook.seconds > 4, "it has run for as long as that takes")
    service.let_end("migrate")
    in_order(reload.ended().stdout, r"  hook      program.py migrate \.\.\. +\d s \.\.\.", r"migrate \.\.\. ok")


def test_its_program_is_not_replaced_meanwhile(hooked: Hooked) -> None:
    """A re-exec is refused while a hook runs, and says why."""
    service = hooked()
    service.configure(after=program("tell"))
    assert service.reload().returncode == 0
    service.until_begun(1)
    eventually(lambda: service.generations() == [2], "the old generation has left")
    with pytest.raises(ProblemError, match=r"the hook program\.py tell runs"):
        service.client.reexec()
    service.let_end("tell")
    eventually(lambda: service.status().hook is None, "it has ended")
    service.client.reexec()
    service.reexecuted(1)


@pytest.mark.parametrize("ignores", [False, True], ids=["leaves", "ignores SIGTERM"])
def test_a_stop(hooked: Hooked, ignores: bool) -> None:
    """It ends the hook, killing it if need be, and the supervisor ends with nobody left."""
    service, pid = migrating(hooked)
    if ignores:
        freeze(pid)
    service.process.terminate()
    assert service.process.wait(30) == 0
    assert is_gone(pid)
    assert "the hook program.py migrate to end" in service.log() or not ignores


def test_a_second_order_to_stop_kills_it(hooked: Hooked) -> None:
    """As it does workers that were told to leave."""
    service, pid = migrating(hooked)
    freeze(pid)
    service.process.terminate()
    eventually(lambda: (hook := service.status().hook) and hook.state == "stopping", "it was told to end")
    service.process.terminate()
    eventually(lambda: is_gone(pid), "it was killed at once, and not after 10 s", deadline=8)
    assert service.process.wait(30) == 0


def test_a_supervisor_that_is_killed_while_it_runs(hooked: Hooked) -> None:
    """The next one ends the hook, rejects the rollout as one that booted, and nobody who is served has noticed.

    The hook of the reload after that runs when the first has gone, and never beside it.
    """
    service = hooked()
    service.configure(before=MIGRATE)
    with Traffic(service.address()) as traffic:
        for _ in range(6 if FULL else 2):
            known = len(service.begun())
            service.client.reload()
            pid = service.until_begun(known + 1)
            service.die()
            assert not is_gone(pid), "it outlives its supervisor"
            service.start()
            service.client.reload()
            service.until_begun(known + 2)
            assert is_gone(pid)
            service.client.abort()
            eventually(lambda: service.status().hook is None, "nothing is left of the next one")
        service.let_end("migrate")
        assert service.reload().returncode == 0
        traffic.goes_on()
    service.logged("hook program.py migrate is off: supervisor-lost")
    service.logged("reload 2 is off: supervisor-lost")
    in_order(service.log(), r"taken over", r"reload 2 is off: supervisor-lost")


def test_a_supervisor_that_is_killed_while_the_first_one_runs(hooked: Hooked) -> None:
    """There is no worker then, and the next start runs its hook when the first has gone."""
    service = hooked(before=MIGRATE, wait=False)
    pid = service.until_begun(1)
    service.die()
    service.start_without_waiting()
    service.until_begun(2)
    assert is_gone(pid)
    service.let_end("migrate")
    service.until_serving()
    assert [word for word, _, _ in service.begun()] == ["migrate"] * 2


def test_a_hook_after_a_cut_over_whose_supervisor_is_killed(hooked: Hooked) -> None:
    """It is ended by the next one, too, and its release serves on."""
    service = hooked()
    service.configure(after=program("tell"))
    assert service.reload().returncode == 0
    pid = service.until_begun(1)
    service.die()
    service.start()
    eventually(lambda: is_gone(pid) and service.status().hook is None, "it has gone")
    (failed,) = eventually(lambda: service.events_of("hook.failed"), "it is told")
    assert failed["reason"] == "supervisor-lost"
    eventually(lambda: service.generations() == [2], "what it was to come after serves")


def test_a_stop_without_a_supervisor(hooked: Hooked) -> None:
    """``stillup stop`` ends the hook that was left as well as the workers, and what it has started."""
    service, pid = migrating(hooked)
    service.die()
    done = service.cli("stop")
    assert done.returncode == 0, done.stderr
    assert is_gone(pid)
