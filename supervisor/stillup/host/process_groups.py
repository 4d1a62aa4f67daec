"""The process groups that workers lead: whatever a worker has started, unless that has left the group (setpgid(2)).

1. A group outlives its leader. Its number is the leader's pid, which nobody else gets while anybody is in the group;
   once it is empty, the number may come to mean another group.
2. So it is signalled by the leader's pidfd (Linux 6.9). Before that it is by number, and only while the leader is not
   reaped: alive, or a child of ours that has ended.
3. Where the leader is gone, each member is held by a pidfd and looked at again before it is signalled.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from typing import Final

from stillup.host import proc_files
from stillup.host.processes import Process, started

_BY_GROUP: Final = 1 << 2
"""PIDFD_SIGNAL_PROCESS_GROUP; not in Python's signal module."""
_NOTHING: Final = 0
"""The signal that is not sent: only whether it could be is said (kill(2))."""


def signal_group(leader: Process, number: int) -> bool:
    """Send a signal to all in the group that this process leads, or led; False if nobody is there.

    A leader that has ended and is not reaped is there; so is who may not be signalled, as another user's (setuid).
    """
    try:
        signal.pidfd_send_signal(leader.pidfd, number, None, _BY_GROUP)
    except ProcessLookupError:
        return False
    except PermissionError:  # all of them are other users'
        return has_others(leader)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return _signal_by_number(leader, number)
    return True


def is_known_by_pidfd(leader: Process) -> bool:
    """Whether its group can be signalled when it is reaped, too."""
    try:
        signal.pidfd_send_signal(leader.pidfd, _NOTHING, None, _BY_GROUP)
    except OSError as error:
        return error.errno != errno.EINVAL
    return True


def outlives_its_leader(leader: Process) -> bool:
    """Whether somebody is in the group of a process that was reaped."""
    return signal_group(leader, _NOTHING)


def has_others(leader: Process) -> bool:
    """Whether somebody else is in its group: a leader that is no child of ours is, until its parent has reaped it."""
    return any(_members(leader.pid))


def _members(leader: int) -> Iterator[int]:
    """The pids of those in a group who have not ended, but for its leader's."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != leader and _group_of(int(name)) == leader:
            yield int(name)


def _signal_by_number(leader: Process, number: int) -> bool:
    if not _is_unreaped(leader):
        return False
    try:
        os.killpg(leader.pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return has_others(leader)
    return True


def _is_unreaped(process: Process) -> bool:
    try:
        os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # no child of ours, or one that was reaped
        return not process.has_ended()
    return True


def kill_left_behind(leader: int, since: int) -> int:
    """Send SIGKILL to those in the group of a process that has ended; how many. ``since``: its start time."""
    with contextlib.suppress(OSError):  # there is none of that number
        if started(leader) != since:
            return 0  # its number is another's by now, and so would be a group of that number
    try:
        os.killpg(leader, _NOTHING)
    except ProcessLookupError:
        return 0
    except PermissionError:
        pass
    killed = 0
    for pid in _members(leader):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            pidfd = os.pidfd_open(pid)
            try:
                if _group_of(pid) == leader:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    killed += 1
            finally:
                os.close(pidfd)
    return killed


def _group_of(pid: int) -> int | None:
    """The number of a process's group; None of one that has ended."""
    try:
        state, _, group = proc_files.stat_fields(pid)[:3]
    except OSError:
        return None
    return int(group) if state not in "ZX" else None
