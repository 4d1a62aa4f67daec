"""The supervisor's own listening sockets: for workers, operators, monitoring and balancers. None is the service's."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Mapping
from typing import Final, TypeAlias, TypedDict

from stillup.daemon.settings.rights import Rights
from stillup.errors import Unavailable
from stillup.host.blocking_close import close_at_once
from stillup.host.callers_socket import refuse_descriptors
from stillup.host.runtime_directory import RuntimeDirectory
from stillup.host.socket_files import UnixFile, bind_unix, give
from stillup.host.sockets import describe, open_listener
from stillup.wire.address import Bind, TcpAddress
from stillup.wire.api_operation import ApiSocket
from stillup.wire.record_format import ReexecState
from stillup.wire.runtime_paths import CONTROL, HANDOFF, OBSERVE

BACKLOG: Final = 128
HANDOFF_BACKLOG: Final = 16
"""Of ``handoff.sock``: a worker waits for whoever is before it, and for a place it waits, too."""
AGENT: Final = "--agent-bind"
TRIAL: Final = ".trial.sock"
"""A socket file that exists for a moment, to see whether its owner and group can be set."""


class OwnSocketNumbers(TypedDict):
    """Their descriptors, as ReexecState has them."""

    control: int
    handoff: int
    observe: int | None
    admin: int | None
    admin_bind: str
    agent: int | None
    agent_bind: str


class OwnSockets:
    """Opened together; ``stack`` closes them, and ``files`` removes the files of those that have one."""

    def __init__(
        self,
        runtime: RuntimeDirectory,
        rights: Rights,
        reexec_state: ReexecState | None,
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
        runtime.let_through(rights.guests)
        mode, uid, gid = rights.handoff
        inherited = reexec_state.handoff if reexec_state else None
        self.handoff = self._open(HANDOFF, inherited, mode, uid=uid, gid=gid, kind=socket.SOCK_SEQPACKET)
        self._control = self._open(
            CONTROL, reexec_state.control if reexec_state else None, 0o660, gid=rights.control_gid
        )
        self._observe = self._open_observe(rights, reexec_state)
        self._admin_bind, self._agent_bind = str(rights.admin_bind or ""), str(rights.agent_bind or "")
        kept = _kept(rights, reexec_state) if reexec_state else {}
        self._admin = self._open_tcp(ApiSocket.ADMIN, rights.admin_bind, kept)
        self.agent = self._open_tcp(AGENT, rights.agent_bind, kept)
        """For agent checks; None if there is to be none."""

    def control_sockets(self) -> Mapping[ApiSocket, socket.socket]:
        """Those behind which the control API answers."""
        found = {ApiSocket.CONTROL: self._control, ApiSocket.OBSERVE: self._observe, ApiSocket.ADMIN: self._admin}
        return {name: sock for name, sock in found.items() if sock is not None}

    def numbers(self) -> OwnSocketNumbers:
        return {
            "control": self._control.fileno(),
            "handoff": self.handoff.fileno(),
            "observe": self._observe.fileno() if self._observe is not None else None,
            "admin": self._admin.fileno() if self._admin is not None else None,
            "admin_bind": self._admin_bind,
            "agent": self.agent.fileno() if self.agent is not None else None,
            "agent_bind": self._agent_bind,
        }

    def admin_address(self) -> str:
        """Where ``--admin-bind`` listens, port 0 being known by now; empty if it does not."""
        return describe(ApiSocket.ADMIN, self._admin).address if self._admin is not None else ""

    def agent_address(self) -> str:
        """The same of ``--agent-bind``."""
        return describe(AGENT, self.agent).address if self.agent is not None else ""

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
            self._stack.callback(close_at_once, sock)
            sock.setblocking(False)  # as it is; but a copy of an object that does not know would clear it for all
            if kind is socket.SOCK_STREAM:
                refuse_descriptors(sock)  # the program before this one may not have known of that
            give(path, mode, uid, gid)  # the configuration may have changed
        else:
            # The lock is ours, so a file that is there is left over; a socket whose file is gone is of no use.
            _drop(inherited)
            sock, file = bind_unix(path, mode, uid, gid, kind=kind, replace=True)
            self._stack.callback(close_at_once, sock)
            sock.listen(HANDOFF_BACKLOG if name == HANDOFF else BACKLOG)
        self._files.callback(file.remove)
        return sock

    def _open_observe(self, rights: Rights, reexec_state: ReexecState | None) -> socket.socket | None:
        inherited = reexec_state.observe if reexec_state else None
        if rights.observe_gid is not None:
            return self._open(OBSERVE, inherited, 0o660, gid=rights.observe_gid)
        _drop(inherited)
        self._runtime.remove(OBSERVE)
        return None

    def _open_tcp(self, name: str, address: TcpAddress | None, kept: Mapping[str, int]) -> socket.socket | None:
        if address is None:
            return None
        if name in kept:
            sock = socket.socket(fileno=kept[name])
            sock.setblocking(False)
        else:
            sock = open_listener(Bind(name, address), BACKLOG).socket
        self._stack.callback(close_at_once, sock)
        return sock


_OfTcp: TypeAlias = tuple[str, TcpAddress | None, int | None, str]
"""A name, the address that is wanted, the inherited descriptor, and what that was bound for."""


def _tcp_sockets(rights: Rights, reexec_state: ReexecState) -> tuple[_OfTcp, ...]:
    return (
        (ApiSocket.ADMIN, rights.admin_bind, reexec_state.admin, reexec_state.admin_bind),
        (AGENT, rights.agent_bind, reexec_state.agent, reexec_state.agent_bind),
    )


def _kept(rights: Rights, reexec_state: ReexecState) -> dict[str, int]:
    """The inherited TCP sockets whose addresses are as they were; others are closed before one is bound anew."""
    kept = {}
    for name, address, inherited, bound_for in _tcp_sockets(rights, reexec_state):
        if inherited is not None and bound_for == str(address or ""):
            kept[name] = inherited
        else:
            _drop(inherited)
    return kept


def _drop(inherited: int | None) -> None:
    if inherited is not None:
        close_at_once(socket.socket(fileno=inherited))


def try_out(runtime: RuntimeDirectory, rights: Rights, reexec_state: ReexecState) -> None:
    """See whether all of them could be had after a re-exec, without touching those that there are.

    Raises:
        Unavailable: one could not.
    """
    runtime.check_way(rights.guests)
    own = os.getegid()
    for uid, gid in (rights.handoff[1:], (-1, rights.control_gid), (-1, rights.observe_gid)):
        sock, file = bind_unix(runtime.file(TRIAL), 0o600, uid, own if gid is None else gid, replace=True)
        sock.close()
        file.remove()
    sockets = _tcp_sockets(rights, reexec_state)
    kept = {bound_for for _, address, fd, bound_for in sockets if fd is not None and bound_for == str(address or "")}
    left = {bound_for.rpartition(":")[2] for _, _, fd, bound_for in sockets if fd is not None and bound_for not in kept}
    for name, address, _, bound_for in sockets:
        if address is not None and str(address) != bound_for:
            _try_tcp(Bind(name, address), is_left=str(address.port) in left)


def _try_tcp(bind: Bind, *, is_left: bool) -> None:
    try:
        open_listener(bind, BACKLOG).close()
    except Unavailable as error:
        reason = error.__cause__
        # A socket of ours that has the port now is closed before the new one is bound, if it is not kept.
        if not is_left or not isinstance(reason, OSError) or reason.errno != errno.EADDRINUSE:
            raise
