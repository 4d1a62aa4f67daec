"""Children of ours, from spawn to reap."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.core.events import HOW_UNKNOWN
from supervisor.host import descriptors
from supervisor.host.processes import DUMP_STACKS, HANDLED, Process, boot_id, find, hold, signal_name, spawn

pytestmark = pytest.mark.usefixtures("no_leak")

ROOT = Path(__file__).parents[2]
DEADLINE = 20.0


@contextlib.contextmanager
def child(*argv: str, environment: dict[str, str] | None = None) -> Iterator[tuple[Process, int, int]]:
    """A child and the reading ends of its stdout and stderr; it is ended and reaped if it still is there."""
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    process = spawn(argv, environment or {}, out_end, err_end)
    os.close(out_end)
    os.close(err_end)
    try:
        yield process, out, err
    finally:
        if process.reap() is None:
            process.signal(signal.SIGKILL)
            ended(process)
        process.close()
        os.close(out)
        os.close(err)


def ended(process: Process) -> str | None:
    """How it ended, as soon as its pidfd says that it has."""
    poll = select.poll()
    poll.register(process.pidfd, select.POLLIN)
    assert poll.poll(DEADLINE * 1000), "it has not ended"
    return process.reap()


def read_all(fd: int) -> str:
    with open(fd, closefd=False) as file:
        return file.read()


def field(pid: int, name: str) -> str:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    match = re.search(rf"^{name}:\s*(.*)$", text, re.MULTILINE)
    assert match is not None
    return match.group(1)


def mask(pid: int, name: str) -> set[int]:
    bits = int(field(pid, name), 16)
    return {number for number in range(1, 65) if bits >> (number - 1) & 1}


@contextlib.contextmanager
def running() -> Iterator[Process]:
    """A child that has said, by itself, that it runs."""
    with child("/bin/sh", "-c", "echo here; exec /bin/sleep 60") as (process, out, _):
        assert os.read(out, 64) == b"here\n"
        yield process


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
    """A child leads a process group of its own, has /dev/null as its stdin, and the HANDLED signals blocked."""
    with standard_input("/dev/zero"), running() as process:
        assert os.getpgid(process.pid) == process.pid
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
from supervisor.host import processes
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
for session in (False, True):
    argv = [*words, sys.executable, "-c", sys.argv[1], str(slave)]
    child = processes.spawn(argv, dict(os.environ), 1, 2, session=session)
    os.waitpid(child.pid, 0)
"""


@pytest.mark.parametrize("old", [(), ("without setsid",)], ids=["posix_spawn", "setsid"])
def test_a_session_of_its_own(old: tuple[str, ...]) -> None:
    """A child that leads a session pushes nothing into our terminal, though it has a descriptor of it."""
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
        spawn(["/bin/true"], {}, 1, 2, session=True)


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
    with Path("/dev/zero").open("rb"), running() as process:
        # Whoever runs the tests may have started them with more.
        inherited = {fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and is_inheritable(fd)}
        assert set(map(int, os.listdir(f"/proc/{process.pid}/fd"))) - inherited == {0, 1, 2}


def test_inheritable_descriptors_are_closed() -> None:
    """After close_on_exec_all a child has none of the descriptors that we were started with above stderr."""
    script = (
        "import os; from supervisor.host import processes; processes.close_on_exec_all(); "
        "process = processes.spawn(['/bin/ls', '-l', '/proc/self/fd'], {}, 1, 2); os.waitpid(process.pid, 0)"
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
        "import os, resource; from supervisor.host import processes; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200)); processes.raise_descriptor_limit(); "
        "process = processes.spawn(['/bin/sh', '-c', 'ulimit -n'], {}, 1, 2); os.waitpid(process.pid, 0)"
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


def test_strays_are_reaped_and_ours_are_not() -> None:
    """Of 150 children and 150 orphans that end at any instant, each stray is reaped and each of ours is told right."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.host.straying"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("150 strays, ours {'exited 3'}\n", "")


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


# Those that somebody else has started


def start_time(pid: int) -> int:
    """Clock ticks from the host's start to the process's, by other means than ours."""
    text = subprocess.run(["cat", f"/proc/{pid}/stat"], capture_output=True, text=True, check=True).stdout
    return int(text[text.rindex(")") + 2 :].split()[19])


def test_find() -> None:
    """A process is found by its pid and the time of its start, and can be signalled like a child."""
    with running() as process:
        assert process.started == start_time(process.pid)
        found = find(process.pid, process.started)
        assert found is not None
        assert (found.pid, found.started, found.has_ended()) == (process.pid, process.started, False)
        found.kill()
        assert ended(process) == "killed by SIGKILL"
        assert found.has_ended()
        assert found.reap() == "ended; how is not known"
        found.close()


def test_a_name_that_looks_like_more(tmp_path: Path) -> None:
    """A program may be named so that its entry in /proc is hard to read; its start is read all the same."""
    program = tmp_path / "a) R 1 (b"
    shutil.copy("/bin/sleep", program)
    with child(str(program), "60") as (process, _, _):
        assert process.started == start_time(process.pid)
        again = hold(process.pid)
        assert again.started == process.started
        again.close()


def test_a_number_that_was_used_again() -> None:
    """Under the same number with another start is another process: it is not taken hold of."""
    with running() as process:
        for started in (process.started - 1, process.started + 1, 0, -1):
            assert find(process.pid, started) is None


def test_nobody_is_found_where_nobody_lives() -> None:
    """A process that has ended is not found; one that was a child of ours, and unreaped, is reaped on the way."""
    with child("/bin/true") as (process, _, _):
        poll = select.poll()
        poll.register(process.pidfd, select.POLLIN)
        assert poll.poll(DEADLINE * 1000)
        assert field(process.pid, "State").startswith("Z")
        assert find(process.pid, process.started) is None
        assert process.reap() == HOW_UNKNOWN
        assert find(process.pid, process.started) is None


def test_a_number_that_is_a_threads_now() -> None:
    """Threads have their numbers from the same row: a process whose number a thread has now is gone."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        assert thread.native_id != os.getpid()
        assert find(thread.native_id, 0) is None
    finally:
        done.set()
        thread.join()


def test_no_descriptor_left() -> None:
    """Without a descriptor nobody can be found, and that is not said of the process."""
    script = (
        "import os, resource, sys; from supervisor.host import processes; me = processes.hold(os.getpid()); "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); processes.find(os.getpid(), me.started)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "OSError: [Errno 24] Too many open files"


def test_boot_id() -> None:
    """The kernel's name for this boot is one, and stays the same."""
    assert str(uuid.UUID(boot_id())) == boot_id()
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
