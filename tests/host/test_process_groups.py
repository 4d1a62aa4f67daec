"""What a worker has started goes with it, and nobody else."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from stillup.host import process_groups
from stillup.host.process_groups import has_others, kill_left_behind, outlives_its_leader, signal_group
from stillup.host.processes import Process, hold

pytestmark = pytest.mark.usefixtures("no_leak")

LEADS = (
    "import os, subprocess, sys, time\n"
    "child = subprocess.Popen(['sleep', '60'])\n"
    "print(child.pid, flush=True)\n"
    "if sys.argv[1] == 'ends': os._exit(0)\n"
    "time.sleep(60)\n"
)


@pytest.fixture(params=[True, False], ids=["pidfd", "number"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the kernel signals groups by pidfd (Linux 6.9)."""
    if not request.param:
        send = signal.pidfd_send_signal

        def old(pidfd: int, number: int, info: None = None, flags: int = 0) -> None:
            if flags:
                raise OSError(errno.EINVAL, "Invalid argument")
            send(pidfd, number, info, flags)

        monkeypatch.setattr(signal, "pidfd_send_signal", old)
    return bool(request.param)


@pytest.fixture
def leader() -> Iterator[Callable[[str], tuple[Process, int]]]:
    """A process that leads a group, and the pid of its child in that."""
    started: list[tuple[subprocess.Popen[str], Process, int]] = []

    def start(how: str) -> tuple[Process, int]:
        popen = subprocess.Popen([sys.executable, "-c", LEADS, how], stdout=subprocess.PIPE, text=True, process_group=0)
        assert popen.stdout is not None
        process, child = hold(popen.pid), int(popen.stdout.readline())
        started.append((popen, process, child))
        return process, child

    yield start
    for popen, process, child in started:
        process.kill()
        popen.wait()
        assert popen.stdout is not None
        popen.stdout.close()
        process.close()
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            continue


def ends(pid: int) -> bool:
    """Whether a process that is no child of ours ends soon."""
    for _ in range(1000):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                if file.read().rpartition(")")[2].split()[0] in "ZX":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.usefixtures("kernel")
def test_a_living_leader(leader: Callable[[str], tuple[Process, int]]) -> None:
    """All of its group get the signal, itself too."""
    process, child = leader("lives")
    assert signal_group(process, signal.SIGKILL)
    assert ends(child)
    while process.reap() is None:
        time.sleep(0.01)


def test_a_leader_that_has_ended(kernel: bool, leader: Callable[[str], tuple[Process, int]]) -> None:
    """While it is not reaped its group can be reached; afterwards by a pidfd alone: its number may be another's."""
    process, child = leader("ends")
    while not process.has_ended():
        time.sleep(0.01)
    assert signal_group(process, 0)
    assert process.reap() == "exited 0"
    assert outlives_its_leader(process) == kernel
    assert signal_group(process, signal.SIGKILL) == kernel
    assert not kernel or ends(child)


@pytest.mark.usefixtures("kernel")
def test_nobody_is_left() -> None:
    """A group that is empty is nobody's, and nobody is signalled."""
    with subprocess.Popen(["sleep", "60"], process_group=0) as leads, closing(hold(leads.pid)) as process:
        with subprocess.Popen(["sleep", "60"], process_group=leads.pid) as member:
            leads.kill()
            leads.wait()
            member.kill()  # a child of ours, too: who reaps another's, and when, is not for us to say
        assert not signal_group(process, signal.SIGKILL)


def test_left_behind(leader: Callable[[str], tuple[Process, int]]) -> None:
    """Those of a leader that is gone are found by their group; those of one whose number lives are left alone."""
    process, child = leader("ends")
    while not process.has_ended():
        time.sleep(0.01)
    assert kill_left_behind(process.pid, process.started + 1) == 0, "its number is another's"
    assert has_others(process)
    assert kill_left_behind(process.pid, process.started) == 1
    assert ends(child)
    assert not has_others(process), "whoever has ended is nobody"
    process.reap()
    for _ in range(1000):
        if not kill_left_behind(process.pid, process.started):
            break
        time.sleep(0.01)  # until whoever is the child's parent now has reaped it
    else:
        pytest.fail("it is killed again and again")


def test_another_users_group(leader: Callable[[str], tuple[Process, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that may not be signalled is there as long as it lives; what else goes wrong is told."""
    process, child = leader("lives")
    for number, told in ((errno.EPERM, False), (errno.EBADF, True)):

        def refused(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(signal, "pidfd_send_signal", refused)
            if told:
                with pytest.raises(OSError, match="Bad file"):
                    process_groups.signal_group(process, 0)
            else:
                assert process_groups.signal_group(process, 0)
                os.kill(child, signal.SIGKILL)
                assert ends(child)
                assert not process_groups.signal_group(process, 0)
