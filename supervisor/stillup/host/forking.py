"""Forking a child for another parent, which is then what a program is that was started: command line and environment.

A child is forked twice: the process in between ends at once, so that the child becomes one of the nearest subreaper
(PR_SET_CHILD_SUBREAPER in prctl(2)), which is the supervisor. Not by clone(2) with CLONE_PARENT: what libraries have to
do around a fork (pthread_atfork(3)) would not be done, and some of them hang then.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import signal
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from stillup.host import proc_files
from stillup.host.libc import LIBC, prctl

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_MM: Final = 35
_PR_SET_MM_MAP: Final = 14
_PR_SET_CHILD_SUBREAPER: Final = 36
_NO_FD: Final = 2**32 - 1
_RESULT = struct.Struct("ii")
"""The child's pid, or 0 and the errno of fork(2)."""


class _Map(ctypes.Structure):
    """``struct prctl_mm_map``."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("start_code", "end_code", "start_data", "end_data", "start_brk", "brk")),
        *((name, ctypes.c_uint64) for name in ("start_stack", "arg_start", "arg_end", "env_start", "env_end", "auxv")),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    )


_LIMITS: Final = tuple(sorted(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")))
_shown: list[mmap.mmap] = []
"""The memory in which others see this process's command line and environment."""


def become_subreaper() -> None:
    """Become the parent of all descendants whose own parent has ended; an exec keeps that, children don't have it.

    Raises:
        OSError: the kernel cannot (before Linux 3.4).
    """
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent() -> None:
    """Be killed when this process's parent ends, or the thread of it that started this process (prctl(2))."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def hide_memory(*, hidden: bool) -> None:
    """Have other processes of this user look into this one, or not: ptrace(2), and most of ``/proc/PID``."""
    prctl(_PR_SET_DUMPABLE, int(not hidden))


def inherited() -> tuple[object, ...]:
    """What this process, or this thread, passes on to its children, beside environment and descriptors.

    Raises:
        OSError: there is no descriptor left to look with.
    """
    status = proc_files.read("self", "status")
    directory = os.stat(".")
    return (
        tuple(resource.getrlimit(limit) for limit in _LIMITS),
        tuple(sorted(os.sched_getaffinity(0))),
        os.sched_getscheduler(0),
        os.getpriority(os.PRIO_PROCESS, 0),
        proc_files.read("self", "oom_score_adj"),
        proc_files.read("self", "cgroup"),
        next((line for line in status.splitlines() if line.startswith("Umask:")), ""),
        (directory.st_dev, directory.st_ino),
    )


def count_threads() -> int:
    """How many threads there are, after a fork for nothing: those that know of forks end by it (OpenBLAS)."""
    if len(os.listdir("/proc/self/task")) > 1:
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
    return len(os.listdir("/proc/self/task"))


def fork_away() -> int:
    """Fork a child whose parent is the nearest subreaper; its pid here, once it has that parent, and 0 in it.

    Needs a process of one thread. Blocks for a moment.

    Raises:
        OSError: as fork(2).
    """
    with mmap.mmap(-1, _RESULT.size) as result:  # shared with the process in between
        between = os.fork()
        if not between:
            try:
                pid = os.fork()
            except OSError as error:
                pid = -(error.errno or errno.EAGAIN)
            if not pid:
                return 0
            result[:] = _RESULT.pack(max(pid, 0), max(-pid, 0))
            os._exit(0)
        os.waitpid(between, 0)
        pid, number = map(int, _RESULT.unpack(result[:]))
    if not pid:
        raise OSError(number or errno.EAGAIN, os.strerror(number or errno.EAGAIN))
    return pid


def show_as(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Have ``/proc/PID/cmdline`` and ``/proc/PID/environ`` say this, as they do of a program that was started so.

    Raises:
        OSError: the kernel cannot (without CONFIG_CHECKPOINT_RESTORE); they are as before then.
    """
    words = b"".join(os.fsencode(word) + b"\0" for word in argv)
    variables = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())
    memory = mmap.mmap(-1, len(words) + len(variables), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = words + variables
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    LIBC.sbrk.restype = ctypes.c_void_p
    fields = proc_files.stat_fields("self")  # of proc_pid_stat(5), from the third on

    def field(number: int) -> int:
        return int(fields[number - 3])

    layout = _Map(
        start_code=field(26),
        end_code=field(27),
        start_data=field(45),
        end_data=field(46),
        start_brk=field(47),
        brk=LIBC.sbrk(0),
        start_stack=field(28),
        arg_start=start,
        arg_end=start + len(words),
        env_start=start + len(words),
        env_end=start + len(words) + len(variables),
        exe_fd=_NO_FD,
    )
    prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.addressof(layout), ctypes.sizeof(layout))
    _shown.append(memory)  # as long as the process lives
