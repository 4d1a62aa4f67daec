"""A connection to the supervisor that is meant, in a runtime directory or on another host; or why there is none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stillup.client.client_errors import NotRunningError, TimedOutError, not_permitted
from stillup.client.unix_http import ControlConnection, UnixHttpConnection

if TYPE_CHECKING:
    from stillup.client.remote_host import RemoteHost  # 10 ms that are for other hosts


def connect(
    directory: str, remote: RemoteHost | None, needs: str, timeout: float | None, *, used: bool = False
) -> ControlConnection:
    """A connection to the supervisor in ``directory``, or to that on another host; the caller's, who hangs up.

    Args:
        directory: the runtime directory; says nothing with ``remote``.
        remote: the host, and which service is meant there.
        needs: for people, what is needed of the caller where the socket is not open to them.
        timeout: seconds of waiting in all, for the connection and for what is read of it; None for any time.
        used: whether one that was released will do, for what may be asked twice: its end may just be on the way.

    Raises:
        NotRunningError: nobody is there who would be asked.
        ProblemError: ``not-permitted``: the socket is not open to us.
        TimedOutError: somebody is there, and takes nobody's connection.
        StillupError: ssh could not be started.
    """
    if remote is None:
        connection: ControlConnection = UnixHttpConnection(directory, timeout)
    else:
        from stillup.client.ssh_http import SshHttpConnection  # noqa: PLC0415 - as above

        if used and (released := SshHttpConnection.released(remote, timeout)) is not None:
            return released
        connection = SshHttpConnection(remote, timeout)
    try:
        connection.connect()
    except PermissionError as error:
        raise not_permitted(f"{directory} is not open to uid {os.geteuid()}; {needs}") from error
    except (TimeoutError, BlockingIOError) as error:
        raise timed_out(where(directory, remote)) from error
    except OSError as error:
        why = "" if isinstance(error, FileNotFoundError | ConnectionRefusedError) else f" ({error})"
        raise NotRunningError(f"no supervisor runs {where(directory, remote)}{why}", directory) from error
    return connection


def where(directory: str, remote: RemoteHost | None) -> str:
    """Where the supervisor is, for people."""
    return f"in {directory}" if remote is None else f"on {remote.url}"


def timed_out(where: str) -> TimedOutError:
    """That it is there, and says nothing."""
    return TimedOutError(f"the supervisor {where} did not answer in time; 'stillup doctor' looks at why")
