"""The supervisor's own listening sockets: for workers, for operators, for monitoring. None is the service's."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Mapping
from typing import Final, TypedDict

from supervisor.daemon.rights import Rights
from supervisor.errors import Unavailable
from supervisor.host.runtime import RuntimeDirectory
from supervisor.host.sockets import UnixFile, bind_unix, describe, give, open_listener
from supervisor.wire.address import Bind, TcpAddress
from supervisor.wire.operations import Door
from supervisor.wire.places import CONTROL, HANDOFF, OBSERVE
from supervisor.wire.record import Bequest

BACKLOG: Final = 128
TRIAL: Final = ".trial.sock"
"""A file that is there for a moment: to see whom a socket's file can be given to."""


class Bequeathed(TypedDict):
    """What a bequest says of them."""

    control: int
    handoff: int
    observe: int | None
    admin: int | None
    admin_bind: str


class OwnSockets:
    """Opened together; ``stack`` closes them, and ``files`` removes the files of those that have one."""

    def __init__(
        self,
        runtime: RuntimeDirectory,
        rights: Rights,
        bequest: Bequest | None,
        stack: contextlib.ExitStack,
        files: contextlib.ExitStack,
    ) -> None:
        """Bind each with its final mode and owner before anybody can connect, or go on with the inherited one.

        Raises:
            Unavailable: one cannot be had.
        """
        self._runtime = runtime
        self._stack = stack
        self._files = files
        self._admin_bind = str(rights.admin_bind or "")
        runtime.let_through(rights.guests)
        self.handoff = self._open(
            HANDOFF, bequest.handoff if bequest else None, 0o600, uid=rights.worker_uid, kind=socket.SOCK_SEQPACKET
        )
        self._control = self._open(CONTROL, bequest.control if bequest else None, 0o660, gid=rights.control_gid)
        self._observe = self._open_observe(rights, bequest)
        self._admin = self._open_admin(rights, bequest)

    def doors(self) -> Mapping[Door, socket.socket]:
        """Those behind which the control API answers."""
        found = {Door.CONTROL: self._control, Door.OBSERVE: self._observe, Door.ADMIN: self._admin}
        return {door: sock for door, sock in found.items() if sock is not None}

    def bequeathed(self) -> Bequeathed:
        return {
            "control": self._control.fileno(),
            "handoff": self.handoff.fileno(),
            "observe": self._observe.fileno() if self._observe is not None else None,
            "admin": self._admin.fileno() if self._admin is not None else None,
            "admin_bind": self._admin_bind,
        }

    def admin_address(self) -> str:
        """Where ``--admin-bind`` listens, port 0 being known by now; empty if it does not."""
        return describe(Door.ADMIN, self._admin).address if self._admin is not None else ""

    def _open(
        self,
        name: str,
        inherited: int | None,
        mode: int,
        *,
        uid: int = -1,
        gid: int | None = None,
        kind: socket.SocketKind = socket.SOCK_STREAM,
    ) -> socket.socket:
        path = self._runtime.file(name)
        # Not -1: in a directory with the setgid bit a file is of the directory's group.
        gid = os.getegid() if gid is None else gid
        if inherited is not None and os.path.lexists(path):
            sock, file = socket.socket(fileno=inherited), UnixFile.of(path)
            self._stack.callback(sock.close)
            sock.setblocking(False)  # as it is; but a copy of an object that does not know would clear it for all
            give(path, mode, uid, gid)  # the configuration may have changed
        else:
            # The lock is ours, so whoever left a file there is gone. One that somebody has removed is of no use.
            _drop(inherited)
            sock, file = bind_unix(path, mode, uid, gid, kind=kind, replace=True)
            self._stack.callback(sock.close)
            sock.listen(BACKLOG)
        self._files.callback(file.remove)
        return sock

    def _open_observe(self, rights: Rights, bequest: Bequest | None) -> socket.socket | None:
        inherited = bequest.observe if bequest else None
        if rights.observe_gid is not None:
            return self._open(OBSERVE, inherited, 0o660, gid=rights.observe_gid)
        _drop(inherited)
        self._runtime.remove(OBSERVE)
        return None

    def _open_admin(self, rights: Rights, bequest: Bequest | None) -> socket.socket | None:
        inherited = bequest.admin if bequest else None
        if rights.admin_bind is None:
            _drop(inherited)
            return None
        if bequest is not None and inherited is not None and bequest.admin_bind == self._admin_bind:
            sock = socket.socket(fileno=inherited)
            sock.setblocking(False)
        else:
            _drop(inherited)
            sock = open_listener(Bind(Door.ADMIN, rights.admin_bind), BACKLOG).socket
        self._stack.callback(sock.close)
        return sock


def _drop(inherited: int | None) -> None:
    if inherited is not None:
        os.close(inherited)


def try_out(runtime: RuntimeDirectory, rights: Rights, bequest: Bequest) -> None:
    """See whether all of them could be had after a re-exec, without touching those that there are.

    Raises:
        Unavailable: one could not.
    """
    runtime.check_way(rights.guests)
    own = os.getegid()
    for uid, gid in ((rights.worker_uid, None), (-1, rights.control_gid), (-1, rights.observe_gid)):
        sock, file = bind_unix(runtime.file(TRIAL), 0o600, uid, own if gid is None else gid, replace=True)
        sock.close()
        file.remove()
    if rights.admin_bind is not None and str(rights.admin_bind) != bequest.admin_bind:
        _try_admin(rights.admin_bind, bequest)


def _try_admin(address: TcpAddress, bequest: Bequest) -> None:
    try:
        open_listener(Bind(Door.ADMIN, address), BACKLOG).close()
    except Unavailable as error:
        reason = error.__cause__
        # The socket that has the port now is closed before the new one is bound.
        is_ours = bequest.admin is not None and bequest.admin_bind.endswith(f":{address.port}")
        if not is_ours or not isinstance(reason, OSError) or reason.errno != errno.EADDRINUSE:
            raise
