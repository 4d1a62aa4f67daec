"""Who is at the other end of a Unix socket, by the kernel's word as of connect() (unix(7), pidfd_open(2)).

1. Uid, gid, groups and pid are the kernel's and cannot be wrong. Whatever else is told of the process is read from
   /proc by its number, and a number may be another's by the time that it is looked at.
2. So a pidfd is taken first, and asked *after* everything was read whether the process lives: then its number was its
   own all the while. If it does not, nobody is blamed: nothing is known but what the kernel said.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import select
import socket
import struct
import time
from collections.abc import Container
from typing import Final

import msgspec

from stillup.core.access import ANYBODY, Principal
from stillup.core.values import replace
from stillup.host import proc_files
from stillup.host.capability_sets import holds_more_than_children
from stillup.host.libc import LIBC, check
from stillup.host.processes import started
from stillup.host.sources import NO_DESCRIPTOR

_UCRED = struct.Struct("iII")
SO_PEERPIDFD: Final = 77
"""Linux 6.5; not in Python's socket module."""
SO_PEERGROUPS: Final = 59
"""Linux 4.13; not in Python's socket module."""
SHORT: Final = 1024
"""Bytes that Python's getsockopt() takes at most: 256 groups."""
NO_LOGIN: Final = 2**32 - 1
"""``/proc/PID/loginuid`` of a process that nobody logged in for (pam_loginuid(8))."""
MOST_STEPS: Final = 1000
"""Up a line of ancestors; who has more of them hides something."""
MOST_ENVIRONMENT: Final = 8 << 20
"""Bytes of an environment that are searched: more than execve(2) allows by default."""
AT_ONCE: Final = 64 << 10
"""Bytes of it that are searched at a time, while no other thread runs Python."""
UNREADABLE: Final = "its environment cannot be read"
GONE: Final = "the process has ended"
_HIDDEN = (FileNotFoundError, PermissionError, ProcessLookupError)
"""What is said of a process that has gone, or is not ours to look at."""


class Peer(msgspec.Struct, frozen=True):
    """A process that has connected. Owns the pidfd."""

    principal: Principal
    """By the kernel's word alone; ``unseen`` says why the process itself cannot be looked at, if it cannot."""
    pidfd: int = -1
    """-1 if there is none."""
    latest: int | None = None
    """Clock ticks: it was not started later than that. Only where the pidfd may be another's (before Linux 6.5)."""

    def identify(self, workers: Container[int], handoff: str, suspects: Container[int] = ()) -> Principal:
        """Look at the process itself. Blocks: its memory may be on a disk. Never raises.

        Args:
            workers: the pids of our workers, which are not reaped, so that no number is another's.
            handoff: the path of our hand-off socket, which a worker and whatever it starts have in their environment.
            suspects: the uids that a worker may have. Of these somebody whose environment cannot be read may be one,
                unless it holds capabilities that no child of ours can have.

        Returns:
            The principal as well as it is known. ``unseen`` says why, where nothing is but the kernel's word.
        """
        pid = self.principal.pid
        if pid == 0 or self.principal.unseen:
            # What our workers start is in our pid namespace or below it, where a process has a number.
            return self.principal
        try:
            has_variable = _has_variable(pid, f"STILLUP_HANDOFF={handoff}")
            for_worker = has_variable or _descends_from(pid, workers)
            found = replace(
                self.principal, for_worker=bool(for_worker), exe=_executable(pid), login_uid=_login_uid(pid)
            )
            hides = has_variable is None and not for_worker and self.principal.uid in suspects
            # What keeps us from reading it may be that it holds more than we do; then it was not started by us.
            if hides and not holds_more_than_children(pid):
                found = replace(found, unseen=UNREADABLE)
            return found if self._is_still_itself() else replace(self.principal, unseen=GONE)
        except _HIDDEN:
            return replace(self.principal, unseen=GONE)
        except OSError as error:  # most likely there is no descriptor to look with
            return replace(self.principal, unseen=error.strerror or str(error))

    def _is_still_itself(self) -> bool:
        return not (self.latest is not None and started(self.principal.pid) > self.latest) and self.lives()

    def lives(self) -> bool:
        """Whether the process that ``pidfd`` stands for has not ended."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)


def hold(sock: socket.socket) -> Peer:
    """Take hold of the process that connected, as early as can be: right after accept(). Does not block.

    Before Linux 6.5 the pidfd is that of the process with this pid now; a later one is recognised by its start time.

    Raises:
        OSError: the socket is not connected.
    """
    said = principal(sock)
    if said.pid == 0:
        return Peer(said)
    latest = None
    try:
        pidfd = _peer_pidfd(sock)
        if pidfd is None:
            latest = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
            pidfd = os.pidfd_open(said.pid)
    except OSError as error:
        out_of_descriptors = error.errno in NO_DESCRIPTOR
        return Peer(replace(said, unseen=(error.strerror if out_of_descriptors else "") or GONE))
    return Peer(said, pidfd, latest)


def principal(sock: socket.socket) -> Principal:
    """Read SO_PEERCRED and SO_PEERGROUPS: pid, uid, primary gid and supplementary groups of the process that connected.

    Of who comes by another way than a Unix socket the kernel says nothing.
    """
    if sock.family != socket.AF_UNIX:
        return ANYBODY
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return Principal(uid=uid, gid=gid, pid=pid, groups=_groups(sock))


def pid(sock: socket.socket) -> int:
    """The pid of the process that connected (SO_PEERCRED); 0 if it has none in our pid namespace."""
    number: int = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
    return number


def is_of(sock: socket.socket, uids: Container[int], gid: int | None) -> bool:
    """Whether who connected over a Unix socket is one of those users, or of that group, as of connect()."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, own = _UCRED.unpack(raw)
    return uid in uids or (gid is not None and (own == gid or gid in _groups(sock)))


def _groups(sock: socket.socket) -> frozenset[int]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, SHORT)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        raw = _long_groups(sock)
    return frozenset(gid for (gid,) in struct.iter_unpack("I", raw))


def _long_groups(sock: socket.socket) -> bytes:
    """SO_PEERGROUPS of somebody who has more than Python asks for; 65,536 are the most (NGROUPS_MAX).

    ``Groups`` in /proc/PID/status would be as of now, not as of connect(), and of another process if this one has gone.
    """
    room = ctypes.create_string_buffer(4 * 65536)
    size = ctypes.c_uint32(len(room))
    check(LIBC.getsockopt(sock.fileno(), socket.SOL_SOCKET, SO_PEERGROUPS, room, ctypes.byref(size)))
    return room.raw[: size.value]


def is_process(sock: socket.socket, pidfd: int, pid: int) -> bool:
    """Whether the peer is the very process that ``pidfd`` stands for.

    ``pidfd`` must be of a process that is not reaped, so that its number cannot be another's. Where the kernel gives a
    pidfd of the peer, that one must show the same number, which the kernel turns to -1 when the process is reaped.

    Raises:
        OSError: it cannot be found out, for want of a descriptor for instance.
    """
    if principal(sock).pid != pid or pid_of(pidfd) != pid:
        return False
    peer = _peer_pidfd(sock)
    if peer is None:
        return True
    try:
        return pid_of(peer) == pid
    finally:
        os.close(peer)


def has_hung_up(sock: socket.socket) -> bool:
    """Whether the peer has closed its end, be what it sent read or not (POLLHUP, poll(2))."""
    poll = select.poll()
    poll.register(sock, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def _peer_pidfd(sock: socket.socket) -> int | None:
    """A pidfd of the process that connected; None where the kernel has none to give.

    Raises:
        OSError: the process is gone, or there is no descriptor left.
    """
    try:
        number: int = struct.unpack("i", sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4))[0]
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:  # before Linux 6.5
            return None
        raise
    return number


def pid_of(pidfd: int) -> int:
    """The number of the process that a pidfd stands for; -1 once it is reaped (proc_pid_fdinfo(5))."""
    match = re.search(r"^Pid:\s*(-?\d+)$", proc_files.read("self", f"fdinfo/{pidfd}"), re.MULTILINE)
    return int(match.group(1)) if match else -1


def _executable(pid: int) -> str:
    try:
        return os.fsencode(os.readlink(f"/proc/{pid}/exe")).decode(errors="replace")
    except _HIDDEN:
        return ""


def _login_uid(pid: int) -> int | None:
    try:
        uid = int(proc_files.read(pid, "loginuid"))
    except (*_HIDDEN, ValueError):
        return None
    return uid if uid != NO_LOGIN else None


def _has_variable(pid: int, variable: str) -> bool | None:
    """Whether a process was started with that in its environment; None if that cannot be read (PR_SET_DUMPABLE).

    A fork has what its parent was started with.
    """
    wanted = b"\0" + os.fsencode(variable) + b"\0"
    rest, left = b"\0", MOST_ENVIRONMENT
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            while left > 0 and (more := file.read(AT_ONCE)):
                left -= len(more)
                text = rest + more
                if wanted in text:
                    return True
                rest = text[-len(wanted) :]
    except _HIDDEN:
        return None
    return wanted in rest + b"\0"  # of one that has written over its own end


def _descends_from(pid: int, ancestors: Container[int]) -> bool:
    """Whether a process or one of its ancestors is one of these; who hides behind too many others counts as well.

    Where one has ended on the way up, its children have got another parent: they are asked again.
    """
    child, at = 0, pid
    for _ in range(MOST_STEPS):
        if at in ancestors:
            return True
        if at <= 1:  # init, or somebody outside our pid namespace
            return False
        parent = _parent(at)
        if parent is not None:
            child, at = at, parent
            continue
        again = _parent(child) if child else at
        if again == at:  # it is there, but not for us to see (hidepid in proc(5)); or it is the peer, and has ended
            return False
        child, at = (child, again) if again is not None else (0, pid)
    return True


def _parent(pid: int) -> int | None:
    try:
        return int(proc_files.stat_fields(pid)[1])
    except _HIDDEN:
        return None
