"""Processes, held by pidfd from their first moment to their last (pidfd_open(2), pidfd_send_signal(2), waitid(2)).

One that is not our child can be signalled, and its end be seen, in the same way; how it ended only its parent learns.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from stillup.core.states import HOW_UNKNOWN
from stillup.host import proc_files

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
NO_ACCESS: Final = "its user may not execute it, or not enter a directory on the way to it: 'namei -l' shows which"
"""What stands behind EACCES of execve(2)."""
MOST_REAPED: Final = 256
"""Processes that are reaped in one go, at a few microseconds each."""

_WALL: Final = 0x40000000
"""Threads, too (waitid(2)); not in Python's os module."""

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


class Process(msgspec.Struct, frozen=True):
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
        """Whether it lives no longer: its pidfd is readable then, or all its threads have ended.

        The second alone is so where another process traces one of them and does not wait for it (ptrace(2)).
        """
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        # While the pidfd is not readable the number is its own.
        return bool(poll.poll(0)) or _all_threads_ended(self.pid)

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

    def give_up_status(self) -> None:
        """Let ``reap_unheld`` reap it: how it ends is of no interest. It can be signalled as before."""
        _held.discard(self)

    def close(self) -> None:
        _held.discard(self)
        os.close(self.pidfd)


def signal_name(number: int) -> str:
    """``SIGTERM`` for 15; the number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextlib.contextmanager
def no_reaping() -> Iterator[None]:
    """While it lasts ``reap_unheld`` reaps nothing: for a caller that starts a child which is not held, or not yet."""
    global _starts  # noqa: PLW0603 - children are the process's, not an object's
    with _reaping:
        _starts += 1
    try:
        yield
    finally:
        with _reaping:
            _starts -= 1


def reap_unheld() -> list[int]:
    """Reap children that have ended and that nobody here holds; their pids.

    PID 1 of a container, or a subreaper, becomes the parent of every process below it whose own has ended, and nobody
    else can reap those. Who starts a child by other means than ``process_start`` does so under ``no_reaping``, or its
    exit status is lost to it.
    Never waits; needs no descriptor.
    """
    reaped: list[int] = []
    with _reaping, contextlib.suppress(ChildProcessError):  # there are no children at all
        while not _starts and len(reaped) < MOST_REAPED:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            # One of ours that has just ended hides those behind it until it is reaped, which is soon. Copied at once,
            # since other threads hold and close meanwhile.
            if ended is None or any(process.pid == ended.si_pid for process in _held.copy()):
                break
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)
            reaped.append(ended.si_pid)
    return reaped


def is_unheld_child(pid: int) -> bool:
    """Whether that is a child of ours that nobody here holds; asked under ``no_reaping``."""
    if pid <= 0 or any(process.pid == pid for process in _held.copy()):
        return False
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


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


def kill_child(pid: int) -> None:
    """Kill a child and reap it; nothing, if that is the number of no child of ours any more. Blocks for a moment."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        pidfd = os.pidfd_open(pid)
        try:
            # Fails where the number is another process's by now; then the pidfd is of that, and no child's.
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        finally:
            os.close(pidfd)


def reap_threads(pid: int) -> None:
    """Reap the ended threads of a process that have made us, its parent, their tracer (PTRACE_TRACEME in ptrace(2)).

    Until then a process that was killed does not end.
    """
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for name in os.listdir(f"/proc/{pid}/task"):
            if int(name) != pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitid(os.P_PID, int(name), os.WEXITED | os.WNOHANG | _WALL)


def _all_threads_ended(pid: int) -> bool:
    try:
        names = os.listdir(f"/proc/{pid}/task")
        return all(proc_files.stat_fields(f"{pid}/task/{name}")[0] in "ZX" for name in names) and bool(names)
    except (FileNotFoundError, ProcessLookupError):  # one of them has just ended, or /proc is hidden from us
        return False


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
    return next(iter(_of_status(pid, "Uid:")[1:2]), None)


def groups(pid: int) -> frozenset[int]:
    """The effective gid of a process, and its supplementary groups; none if it has gone."""
    return frozenset((*_of_status(pid, "Gid:")[1:2], *_of_status(pid, "Groups:")))


def _of_status(pid: int, field: str) -> list[int]:
    """The numbers of a field (proc_pid_status(5))."""
    try:
        text = proc_files.read(pid, "status")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return next(([int(word) for word in line.split()[1:]] for line in text.splitlines() if line.startswith(field)), [])


def started(pid: int) -> int:
    """Clock ticks from the host's start to that of the process which has that number now.

    Raises:
        OSError: there is none.
    """
    return int(proc_files.stat_fields(pid)[19])


def start_trouble(error: Exception) -> str:
    """Why a process could not be started, for people."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    why = {errno.EAGAIN: LIMIT, errno.EACCES: NO_ACCESS}.get(error.errno or 0)
    return f"{error.strerror} ({why})" if why else error.strerror


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
