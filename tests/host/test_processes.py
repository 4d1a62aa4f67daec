"""Children of ours, from spawn to reap."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillup.host import descriptors
from stillup.host.process_start import spawn
from stillup.host.processes import DUMP_STACKS, HANDLED, kill_child, signal_name
from tests.host.example_children import DEADLINE, child, ended, mask, read_all, running

pytestmark = pytest.mark.usefixtures("no_leak")

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def standard_input(path: str) -> Iterator[None]:
    """Have something else as our own stdin."""
    kept = os.dup(0)
    descriptors.put_in_place(os.open(path, os.O_RDONLY), 0)
    try:
        yield
    finally:
        descriptors.put_in_place(kept, 0)


def is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # the one that listed the others
        return False


def test_what_a_child_starts_with() -> None:
    """A child leads a session and a group of its own, has /dev/null as its stdin, and the HANDLED signals blocked."""
    with standard_input("/dev/zero"), running() as process:
        assert os.getpgid(process.pid) == os.getsid(process.pid) == process.pid
        assert os.readlink(f"/proc/{process.pid}/fd/0") == "/dev/null"
        assert mask(process.pid, "SigBlk") == set(HANDLED)


PUSH = """
import fcntl, os, sys, termios
print(os.getsid(0) == os.getpgid(0) == os.getpid(), end=" ")
try:
    fcntl.ioctl(int(sys.argv[1]), termios.TIOCSTI, b"x")
except OSError as error:
    print(error.strerror)
else:
    print("pushed")
"""
"""Into the terminal at a descriptor."""

ON_A_TERMINAL = """
import fcntl, os, sys, termios
import subprocess
from stillup.host import process_start
master, slave = os.openpty()
os.setsid()
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
if sys.argv[2:]:
    kept = os.posix_spawn
    def posix_spawn(*args, **options):
        if "setsid" in options:
            raise NotImplementedError
        return kept(*args, **options)
    os.posix_spawn = posix_spawn
os.set_inheritable(slave, True)
words = ["/usr/bin/env", "setpriv", "--reuid=12345", "--regid=12346", "--clear-groups", "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search"] if os.geteuid() == 0 else []
argv = [*words, sys.executable, "-c", sys.argv[1], str(slave)]
subprocess.run(argv, pass_fds=[slave])
child = process_start.spawn(argv, dict(os.environ), 1, 2)
os.waitpid(child.pid, 0)
"""


@pytest.mark.parametrize("old", [(), ("without setsid",)], ids=["posix_spawn", "setsid"])
def test_a_session_of_its_own(old: tuple[str, ...]) -> None:
    """A child leads a session, and pushes nothing into our terminal, though it has a descriptor of it."""
    argv = [sys.executable, "-c", ON_A_TERMINAL, PUSH, *old]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=True)
    same, own = done.stdout.splitlines()
    # A kernel may let nobody push but whoever has CAP_SYS_ADMIN (dev.tty.legacy_tiocsti): EIO.
    assert same in ("False pushed", "False Input/output error")
    assert own == "True Operation not permitted" or (own == "True Input/output error" and "error" in same)


def test_no_command_for_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither Python nor a command can begin one, nothing is started, and the error says what is missing."""

    def posix_spawn(*_: object, **options: object) -> int:
        assert "setsid" in options
        raise NotImplementedError

    monkeypatch.setattr(os, "posix_spawn", posix_spawn)
    monkeypatch.setenv("PATH", "/no-such")
    with pytest.raises(FileNotFoundError, match=r"the command setsid \(util-linux\) is not in PATH"):
        spawn(["/bin/true"], {}, 1, 2)


def test_ignored_signals_are_not_handed_on() -> None:
    """A child ignores neither SIGPIPE and SIGXFSZ, as Python does, nor SIGCHLD, as we may have been started to."""
    ignored = {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD}
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert ignored <= mask(os.getpid(), "SigIgn")
        with running() as process:
            assert not ignored & mask(process.pid, "SigIgn")
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_output_and_environment() -> None:
    """A child's stdout and stderr are the two that it was given, and its environment is the given one alone."""
    script = "echo out $0; echo err >&2; exec /usr/bin/env"
    with child("/bin/sh", "-c", script, "name", environment={"ONLY": "this"}) as (process, out, err):
        lines = read_all(out).splitlines()
        assert lines[0] == "out name"
        assert "ONLY=this" in lines
        assert "HOME" not in {line.partition("=")[0] for line in lines}
        assert read_all(err) == "err\n"
        assert ended(process) == "exited 0"


def test_no_other_descriptors() -> None:
    """A child has its three standard descriptors, and none that we have opened."""
    # One that goes on to execute something else has its libraries open for a moment.
    with Path("/dev/zero").open("rb"), child("/bin/sh", "-c", "echo here; kill -STOP $$") as (process, out, _):
        assert os.read(out, 64) == b"here\n"
        # Whoever runs the tests may have started them with more.
        inherited = {fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and is_inheritable(fd)}
        assert set(map(int, os.listdir(f"/proc/{process.pid}/fd"))) - inherited == {0, 1, 2}


def test_inheritable_descriptors_are_closed() -> None:
    """After close_on_exec_all a child has none of the descriptors that we were started with above stderr."""
    script = (
        "import os; from stillup.host import process_start, processes; processes.close_on_exec_all(); "
        "process = process_start.spawn(['/bin/ls', '-l', '/proc/self/fd'], {}, 1, 2); os.waitpid(process.pid, 0)"
    )
    with Path("/dev/zero").open("rb") as zero:
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            pass_fds=[zero.fileno()],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    assert " 0 -> /dev/null" in done.stdout
    assert "/dev/zero" not in done.stdout


def test_descriptor_limit() -> None:
    """After raise_descriptor_limit we and our children may have as many descriptors as the hard limit allows."""
    script = (
        "import os, resource; from stillup.host import process_start, processes; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200)); processes.raise_descriptor_limit(); "
        "process = process_start.spawn(['/bin/sh', '-c', 'ulimit -n'], {}, 1, 2); os.waitpid(process.pid, 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "200\n"


def test_alive() -> None:
    """While the process lives reap says None, however often it is asked."""
    with running() as process:
        assert process.reap() is None
        assert process.reap() is None


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("exit 0", "exited 0"),
        ("exit 3", "exited 3"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("kill -KILL $$", "killed by SIGKILL"),
        ("kill -40 $$", "killed by signal 40"),
    ],
)
def test_how_it_ended(script: str, end: str) -> None:
    """Reap tells a code from a signal, by its name where it has one, and takes the process out of the table."""
    with child("/bin/sh", "-c", f"ulimit -c 0; {script}") as (process, _, _):
        assert ended(process) == end
        assert not Path(f"/proc/{process.pid}").exists()


def test_reaped_by_somebody_else() -> None:
    """Of a process that somebody else has reaped, such as a library in our own, reap says that it has ended."""
    with child("/bin/true") as (process, _, _):
        os.waitpid(process.pid, 0)
        assert process.reap() == "ended; how is not known"


def test_orphans_are_reaped_and_held_children_are_not() -> None:
    """Of 150 children and 150 orphans that end at any instant, all orphans are reaped; each child's end is known."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.host.orphan_reaper"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("150 orphans, ours {'exited 3'}\n", "")


def test_signal() -> None:
    """A signal reaches the process, and a handled one waits until the child has unblocked it."""
    script = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('here', flush=True); "
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM]); signal.pause()"
    )
    with child(sys.executable, "-c", script) as (process, out, _):
        process.signal(signal.SIGTERM)
        assert read_all(out) == "here\n"
        assert ended(process) == "exited 7"


def test_a_signal_is_sent_only_to_who_has_a_handler() -> None:
    """A signal that would kill is kept back unless the process catches it; one that has ended is sent nothing."""
    script = """
import faulthandler, signal, sys
if sys.argv[1] == "catch":
    faulthandler.register(int(sys.argv[2]), all_threads=True)
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
"""
    for catch in (True, False):
        argv = (sys.executable, "-c", script, "catch" if catch else "", str(DUMP_STACKS))
        with child(*argv) as (process, out, err):
            assert os.read(out, 100) == b"ready\n"
            assert process.signal_if_caught(DUMP_STACKS) is catch
            said = b""
            while catch and b'File "<string>", line ' not in said:
                said += os.read(err, 65536)  # it comes in pieces
            assert process.reap() is None, "it lives"
            process.signal(signal.SIGKILL)
            ended(process)
            assert process.signal_if_caught(DUMP_STACKS) is False


def test_signal_to_one_that_has_ended() -> None:
    """A signal to a process that has ended, reaped or not, does nothing, and hits nobody else."""
    with child("/bin/true") as (process, _, _):
        poll = select.poll()
        poll.register(process.pidfd, select.POLLIN)
        assert poll.poll(DEADLINE * 1000)
        process.signal(signal.SIGKILL)
        assert process.reap() == "exited 0"
        process.signal(signal.SIGKILL)


@pytest.mark.parametrize("program", ["/nowhere/at/all", "/etc/passwd", "/"])
def test_what_cannot_be_started(program: str) -> None:
    """A program that is not there or cannot be executed is an OSError at once, and no child is left of it."""
    before = os.listdir("/proc/self/task")
    children = Path(f"/proc/self/task/{before[0]}/children").read_text(encoding="ascii")
    with pytest.raises(OSError, match=re.escape(program)):
        spawn([program], {}, 1, 2)
    assert Path(f"/proc/self/task/{before[0]}/children").read_text(encoding="ascii") == children


def test_signal_names() -> None:
    """A signal is told by its name, one without a name by its number."""
    assert (signal_name(15), signal_name(9), signal_name(50)) == ("SIGTERM", "SIGKILL", "signal 50")


def test_a_child_that_is_killed() -> None:
    """It is reaped, too; what is no child of ours any more, or never was, is left alone."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    kill_child(pid)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    kill_child(pid)
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        grandchild = int(shell.stdout.readline())
        kill_child(grandchild)
        assert Path(f"/proc/{grandchild}/stat").read_text().split()[2] not in "ZX"
        os.kill(grandchild, signal.SIGTERM)
        shell.kill()
