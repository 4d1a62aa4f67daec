"""Processes, held by pidfd from their first moment to their last (pidfd_open(2), pidfd_send_signal(2), waitid(2)).

One that is not our child can be signalled, and its end be seen, in the same way; how it ended only its parent learns.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supervisor.core.events import HOW_UNKNOWN

HANDLED = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGUSR1,
        signal.SIGUSR2,
    }
)
"""What supervisor and workers have handlers for. Blocked until those are in place: by default each would kill."""

_NOBODY = frozenset({errno.ESRCH, errno.ENOENT, errno.EINVAL})
"""What is said of a number that no process has; the last of one that is a thread's now (pidfd_open(2))."""


DUMP_STACKS: Final = int(signal.SIGRTMIN) + 7
"""At this signal a worker writes where each of its threads is to its stderr (``faulthandler.register``).

Not one of the ordinary signals, which belong to the app; and not the first real-time ones, which libraries take.
"""
LIMIT: Final = "a limit of processes: RLIMIT_NPROC, or pids.max of the cgroup"
"""What stands behind EAGAIN of fork(2), and behind a thread that cannot be started."""
MOST_STRAYS: Final = 256
"""Strays that are reaped in one go, at a few microseconds each."""

_held: set[Process] = set()
"""Every child that somebody here holds, and whose exit status is for nobody else."""
_reaping = threading.Lock()
_starts = 0
"""Children that are being started, and so are not among those yet; changed under the lock."""


def block_handled() -> None:
    """Let no HANDLED signal come to this thread; every thread but the first begins with this.

    A signal for the process comes to any thread that lets it in, and is kept only when none does (signal(7)).
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)


@dataclass(frozen=True, slots=True)
class Process:
    """A child of ours, or of a supervisor before us. Owns the pidfd."""

    pid: int
    pidfd: int
    started: int
    """Clock ticks from the host's start to its own (proc_pid_stat(5)): with the pid, its identity."""

    def __post_init__(self) -> None:
        _held.add(self)

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens if the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.signal(signal.SIGKILL)

    def has_ended(self) -> bool:
        """Whether it lives no longer (its pidfd is readable then)."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def signal_if_caught(self, number: int) -> bool:
        """Send a signal that would end a process without a handler, if this one has a handler; whether it was sent.

        ``SigCgt`` in proc(5) is found by its number; should that belong to another by now, the pidfd knows better.
        """
        try:
            with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as file:
                caught = next(int(line.split()[1], 16) for line in file if line.startswith("SigCgt:"))
        except (OSError, StopIteration):  # /proc may be hidden from us, or we are out of descriptors
            return False
        if not caught >> (number - 1) & 1:
            return False
        self.signal(number)
        return True

    def reap(self) -> str | None:
        """How the process ended (``exited 1``, ``killed by SIGSEGV``), reaping it, or None while it lives.

        To be asked when the pidfd is readable: of one that is not our child nothing more than that is known.
        """
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return HOW_UNKNOWN
        if result is None:
            return None
        if result.si_code == os.CLD_EXITED:
            return f"exited {result.si_status}"
        return f"killed by {signal_name(result.si_status)}"

    def close(self) -> None:
        _held.discard(self)
        os.close(self.pidfd)


def signal_name(number: int) -> str:
    """``SIGTERM`` for 15; the number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def spawn(
    argv: Sequence[str], environment: Mapping[str, str], stdout: int, stderr: int, *, session: bool = False
) -> Process:
    """Start a child in a process group of its own, with the HANDLED signals blocked and /dev/null as its stdin.

    With ``session`` it leads a session, too, so that our terminal is not its: it can neither push input into that
    (TIOCSTI in ioctl_tty(2)) nor take it. Blocks until the new program is found and its exec begins; not for an event
    loop's thread.

    Raises:
        OSError: it could not be started.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, stdout, 1),
        (os.POSIX_SPAWN_DUP2, stderr, 2),
    ]

    def start(argv: Sequence[str], **group: int) -> int:
        return os.posix_spawn(
            argv[0],
            list(argv),
            dict(environment),
            file_actions=actions,
            setsigmask=HANDLED,
            # CPython ignores these two for itself; a program expects the default.
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD],
            **group,  # type: ignore[arg-type]
        )

    with no_reaping():
        pid = _start_in_session(start, argv) if session else start(argv, setpgroup=0)
        try:
            return hold(pid)
        except OSError:
            # Without a pidfd it could not be ended safely later. It is not reaped yet, so its number is still its own.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise


def _start_in_session(start: Callable[..., int], argv: Sequence[str]) -> int:
    try:
        return start(argv, setsid=True)
    except NotImplementedError:  # this Python was built for a C library before glibc 2.26
        command = shutil.which("setsid")
        if command is None:
            raise FileNotFoundError(errno.ENOENT, "the command setsid (util-linux) is not in PATH") from None
        # It forks where it would lead a group, so that it must not, and then is the same process all the way.
        return start([command, *argv])


@contextlib.contextmanager
def no_reaping() -> Iterator[None]:
    """While it lasts no child is reaped as a stray: for whoever starts one that is not held yet, or never will be."""
    global _starts  # noqa: PLW0603 - children are the process's, not an object's
    with _reaping:
        _starts += 1
    try:
        yield
    finally:
        with _reaping:
            _starts -= 1


def reap_strays() -> list[int]:
    """Reap children that have ended and that nobody here holds; their pids.

    PID 1 of a container becomes the parent of every process whose own has ended, and nobody else can reap those. Who
    starts a child by other means than ``spawn`` does so under ``no_reaping``, or its exit status is lost to it. Never
    waits; needs no descriptor.
    """
    strays: list[int] = []
    with _reaping, contextlib.suppress(ChildProcessError):  # there are no children at all
        while not _starts and len(strays) < MOST_STRAYS:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            # One of ours that has just ended hides those behind it until it is reaped, which is soon.
            if ended is None or any(process.pid == ended.si_pid for process in _held):
                break
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)
            strays.append(ended.si_pid)
    return strays


def hold(pid: int) -> Process:
    """Take hold of a process that is sure to be the one that is meant: a child not yet reaped, or a connected peer.

    Raises:
        OSError: it has gone, or there is no descriptor left.
    """
    pidfd = os.pidfd_open(pid)
    try:
        return Process(pid, pidfd, started(pid))
    except OSError:
        os.close(pidfd)
        raise


def find(pid: int, started: int) -> Process | None:
    """Take hold of the process that had this pid and start time, if it lives.

    Raises:
        OSError: there is no descriptor left.
    """
    try:
        process = hold(pid)
    except OSError as error:
        if error.errno in _NOBODY:
            return None
        raise
    # It is looked at after it is held: were the number another's by then, so is the start time.
    if process.started == started and not process.has_ended():
        return process
    if process.started == started:
        process.reap()  # if it was a child of ours
    process.close()
    return None


def boot_id() -> str:
    """The kernel's name for the time since the host's start (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def owner(pid: int) -> int | None:
    """The effective uid of a process; None if it has gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((int(line.split()[2]) for line in text.splitlines() if line.startswith("Uid:")), None)


def started(pid: int) -> int:
    """Clock ticks from the host's start to that of the process which has that number now.

    Raises:
        OSError: there is none.
    """
    # The second field is the program's name in parentheses, and may hold anything; the start time is the 22nd.
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return int(text.rpartition(")")[2].split()[19])


def raise_descriptor_limit() -> None:
    """Let this process and its children have as many descriptors as may be had: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def close_on_exec_all() -> None:
    """Mark every descriptor above stderr close-on-exec: what we were started with is not for the workers."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2:  # noqa: PLR2004 - past stderr
            with contextlib.suppress(OSError):  # the one that listdir itself had open
                os.set_inheritable(fd, False)
