"""An HTTP connection to a supervisor on another host, by ssh."""

from __future__ import annotations

import select
import socket
from typing import Final

from stillup.client.client_errors import NOT_RUNNING, NotRunningError, UnreachableError, not_permitted
from stillup.client.remote_host import Dialled, RemoteHost
from stillup.client.unix_http import ControlConnection
from stillup.errors import StillupError, UsageError
from stillup.wire.problem_types import PROBLEM_TYPES

_PATIENCE: Final = 5.0
"""Seconds for an ssh that has hung up to end."""
_SSH: Final = 255
"""With this ssh ends when it is itself that failed (ssh(1))."""
_NO_COMMAND: Final = 127
"""With this a shell ends that does not find a command."""


class SshHttpConnection(ControlConnection):
    """A connection to the supervisor of a service there."""

    def __init__(self, remote: RemoteHost, timeout: float | None) -> None:
        super().__init__(timeout)
        self._remote = remote
        self._dialled: Dialled | None = None

    def reach(self, seconds: float | None) -> socket.socket:  # noqa: ARG002 - whether it is there is seen by the answer
        """Start ssh.

        Raises:
            StillupError: it could not be started.
        """
        sock, self._dialled = self._remote.dial()
        return sock

    def objection(self) -> StillupError | None:
        """What ssh says, or the command there; None if both went well, and it is the supervisor that has hung up."""
        ended = self._dialled.ended(_PATIENCE) if self._dialled is not None else None
        if ended is None or ended[0] == 0:
            return None
        code, said = ended
        where = self._remote.url
        why = f"{where}: {said}"
        if code == NOT_RUNNING:
            return NotRunningError(why)
        if code == PROBLEM_TYPES["not-permitted"].exit_code:
            return not_permitted(why)
        if code == PROBLEM_TYPES["usage"].exit_code:
            return UsageError(why)
        if code == _NO_COMMAND:
            missing = "no 'stillup' in the PATH of a command by ssh there: a link in /usr/local/bin is"
            return UnreachableError(f"{where}: {missing} ({said})")
        return UnreachableError(f"{where} cannot be reached: {said or 'ssh does not say why'}" if code == _SSH else why)

    @classmethod
    def released(cls, remote: RemoteHost, timeout: float | None) -> SshHttpConnection | None:
        """One that leads there and was released, if its other end has not hung up since."""
        connection = _released.pop(remote, None)
        if connection is None:
            return None
        said = select.poll()  # not select(2), which knows no descriptor above 1,023
        said.register(connection.sock, select.POLLIN)
        if said.poll(0):
            connection.hang_up()
            return None
        connection.sock.limit(timeout)
        return connection

    def release(self) -> None:
        """Keep it for the next: each takes a login, or at least a process on that host."""
        if self.sock is None or self._remote in _released:
            self.hang_up()
        else:
            _released[self._remote] = self

    def hang_up(self) -> None:
        """As there, and let ssh end."""
        super().hang_up()
        if self._dialled is not None:
            self._dialled.leave()
            self._dialled = None


_released: Final[dict[RemoteHost, SshHttpConnection]] = {}
"""By where they lead, one each."""
