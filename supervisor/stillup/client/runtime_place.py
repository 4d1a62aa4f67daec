"""A runtime directory as a client finds it: whose it is, who could have put it there, and who listens in it.

Anybody may make a directory in /tmp and listen there, and what answers 'reload' with 'ok' need not be a supervisor.

1. Where a service is looked for by its name, in the user's own folders, both levels are that user's or root's; in
   /run/stillup the folder is root's, and what is in it is whose root has put it there for: the user of a unit.
2. A directory that is named by its path is trusted with its owner: nobody else than root, the caller and that owner may
   be able to put another in its place.
3. Who listens is asked of the kernel (SO_PEERCRED in unix(7), as of listen()): it is the directory's owner. A
   supervisor runs in a directory of its own user, so nobody else can be one there; and a link to the socket of another
   service is no way to that one.
4. No link is followed that is of somebody else, and none at the last step: the socket is opened by itself (``O_PATH``),
   looked at, and connected to by that descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from stillup.client.client_errors import NotRunningError
from stillup.host import path_walk
from stillup.host.path_walk import Way
from stillup.wire.runtime_paths import CONTROL, bases

_UCRED: Final = struct.Struct("3i")
LOOK: Final = 1.0
"""Seconds that a look waits for the queue of a socket; one that is full is somebody's."""


class RuntimePlace(msgspec.Struct, frozen=True):
    """A directory that is trusted. Its descriptor is that of ``visit``."""

    path: str
    fd: int
    owner: int
    """The uid of those who may answer there."""

    def connect(self, seconds: float | None) -> socket.socket:
        """A connection to the control socket, whose listener is the owner; the caller's.

        Args:
            seconds: within which it has to be there; None for any time.

        Raises:
            NotRunningError: somebody else listens there.
            BlockingIOError: the queue was full all the time.
            OSError: nobody listens there, or we may not connect.
        """
        sock = self._reach(seconds)
        pid, uid, _ = peer(sock)
        if uid != self.owner:
            sock.close()
            raise NotRunningError(
                f"nobody was asked: on {self.path}/{CONTROL} listens uid {uid} (pid {pid}), and the directory is that "
                f"of uid {self.owner}"
            )
        return sock

    def _reach(self, seconds: float | None) -> socket.socket:
        fd = os.open(CONTROL, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                raise OSError(errno.ENOTSOCK, f"{self.path}/{CONTROL} is no socket")
            # Not settimeout(), which makes it non-blocking: a queue that is full would be EAGAIN at once (unix(7)).
            ends = None if seconds is None else time.monotonic() + seconds
            while not _is_connected(sock):
                if ends is not None:
                    whole, part = divmod(max(ends - time.monotonic(), 1e-5), 1)
                    limit = struct.pack("ll", int(whole), int(part * 1e6))
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
                # A signal, a stop or a freeze interrupts the wait, which Python takes for a connection being made.
                sock.connect(f"/proc/self/fd/{fd}")
        except OSError:
            sock.close()
            raise
        finally:
            os.close(fd)
        return sock

    @property
    def is_heard(self) -> bool:
        """Whether somebody listens on the control socket, be it somebody whom one would not ask anything."""
        try:
            self._reach(LOOK).close()
        except (PermissionError, BlockingIOError):
            return True  # it is there, and will say so itself
        except OSError:
            return False
        return True


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def peer(sock: socket.socket) -> tuple[int, int, int]:
    """Pid, uid and gid of the process that listens at the other end; a pid of 0 is of another pid namespace."""
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid, gid


@contextlib.contextmanager
def visit(directory: str) -> Iterator[RuntimePlace]:
    """Look at a runtime directory, on the way there and in it.

    Raises:
        NotRunningError: somebody else could have put it there; the message names the level.
        OSError: it is not there, or may not be looked at.
    """
    with contextlib.closing(path_walk.walk(directory)) as way:
        why = _objection(directory, way)
        if why:
            raise NotRunningError(f"nobody was asked in {directory}: {why}")
        yield RuntimePlace(directory, way.fd, way.status.st_uid)


def runs(directory: str) -> bool:
    """Whether somebody listens there who may be the supervisor: anybody may make a directory."""
    try:
        with visit(directory) as place:
            place.connect(LOOK).close()
    except (PermissionError, BlockingIOError):
        return True  # it is there, and will say so itself
    except (OSError, NotRunningError):
        return False
    return True


def entries(folder: str) -> list[str]:
    """The names in a folder of services; none in one of somebody else, who may have made any number of them."""
    try:
        with contextlib.closing(path_walk.walk(folder)) as way:
            return os.listdir(f"/proc/self/fd/{way.fd}") if not way.hazards_inside else []
    except OSError:
        return []


def own_folder(name: str, environment: Mapping[str, str]) -> str:
    """A folder of this user's login in which nobody else puts anything, made if it is missing; empty: there is none."""
    login = environment.get("XDG_RUNTIME_DIR")
    folder = f"{login}/{name}" if login else f"/tmp/{name}-{os.geteuid()}"  # noqa: S108 - the walk looks at whose it is
    try:
        with contextlib.closing(path_walk.walk(folder, make=0o700)) as way:
            ours = way.path == folder and way.status.st_uid == os.geteuid() and not way.hazards_inside
            return folder if ours else ""
    except OSError:
        return ""


def hazards(directory: str) -> list[str]:
    """Why a start in a directory would be refused because of what is above it, be it there or not.

    Raises:
        OSError: a level may not be looked at.
    """
    above = os.path.dirname(os.path.abspath(directory))
    while not os.path.exists(above):
        above = os.path.dirname(above)
    try:
        user = os.stat(directory).st_uid  # whose a supervisor there is to be
    except FileNotFoundError:
        user = os.geteuid()
    with contextlib.closing(path_walk.walk(above)) as way:
        return [hazard.why for hazard in way.hazards_inside if hazard.uid != user]


def _objection(directory: str, way: Way) -> str:
    """Why it is not trusted; empty if it is."""
    me, owner = os.geteuid(), way.status.st_uid
    *own, system = bases(me, os.environ)
    base = os.path.dirname(directory.rstrip("/"))
    named = base not in (*own, system)
    for hazard in way.hazards:
        if not named or hazard.uid != owner:
            return hazard.why
    if base in own and owner not in path_walk.trusted():
        return f"it is of uid {owner}, in a folder where services of uid {me} are"
    return ""
