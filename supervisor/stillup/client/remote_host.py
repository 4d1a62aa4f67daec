"""A host that ssh reaches, and a service there: ``stillup dial-stdio`` is run on it, and passes bytes on.

Who asks is, to the supervisor there, the user that ssh logs in as. Nothing else of ssh is ours: keys, known hosts,
jumps and names are those of ssh_config(5). The connection is kept for a minute and shared (ControlMaster there), so
that a command that asks ten times a second logs in once.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Final

import msgspec

from stillup.client import runtime_place
from stillup.errors import StillupError, UsageError
from stillup.wire.runtime_paths import check_name

VARIABLE: Final = "STILLUP_REMOTE"
# A user or host that began with '-' would be an option to ssh, and one with a space or a quote two words to a shell.
_URL: Final = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?"
    r"(?:(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*)|\[(?P<v6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\])(?::(?P<port>[0-9]{1,5}))?/?"
)
_KEPT: Final = "60"
"""Seconds that ssh keeps a connection after its last use."""
_ALIVE: Final = "15"
"""Seconds after which ssh asks a silent host whether it is there; three times, then it hangs up."""
_LONGEST_PATH: Final = 48
"""Bytes of a folder in which ssh can make its sockets: 107 are the most (unix(7)), of which it takes 58."""
_PLAIN: Final = re.compile(r"[\w./@-]+")
"""Paths in which ssh has nothing to expand, and its options nothing to split."""
_OURS: Final = "stillup: "
"""With this our own commands begin what goes wrong."""
_MOST_SAID: Final = 64 * 1024
"""Bytes of it that are read."""


class RemoteHost(msgspec.Struct, frozen=True):
    """Where ``ssh://[user@]host[:port]`` leads, and which service is meant there."""

    host: str
    user: str = ""
    port: int | None = None
    name: str = ""
    runtime_dir: str = ""

    @property
    def url(self) -> str:
        """As it was said."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{f'{self.user}@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"

    def command(self, *there: str, options: Sequence[str] = ()) -> list[str]:
        """The ssh command that runs ``stillup`` with these words there."""
        user, port = ("-l", self.user) if self.user else (), ("-p", str(self.port)) if self.port else ()
        return ["ssh", *options, *user, *port, "--", self.host, shlex.join(("stillup", *there))]

    def dial(self) -> tuple[socket.socket, Dialled]:
        """Have ssh lead to the supervisor: our end of the way, and what becomes of it.

        Raises:
            StillupError: ssh could not be started.
        """
        which = [f"--name={self.name}"] if self.name else []
        which += [f"--runtime-dir={self.runtime_dir}"] if self.runtime_dir else []
        words = self.command("dial-stdio", *which, options=_options())
        ours, theirs = socket.socketpair()
        said = tempfile.TemporaryFile()  # noqa: SIM115 - it is the result's
        try:
            with theirs:
                process = subprocess.Popen(words, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=said)  # noqa: S603 - ssh
        except OSError as error:
            ours.close()
            said.close()
            missing = "the command ssh (openssh-client) is not in PATH"
            raise StillupError(missing if isinstance(error, FileNotFoundError) else f"ssh: {error}") from error
        return ours, Dialled(process, said)


class Dialled:
    """An ssh that leads to a supervisor."""

    def __init__(self, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        self._process = process
        self._said = said

    def ended(self, seconds: float) -> tuple[int, str] | None:
        """Its exit code, and the line in which it or the command there says why; None if it does not end by then."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read(_MOST_SAID).decode(errors="replace").splitlines()]
        ours = [line.removeprefix(_OURS) for line in lines if line.startswith(_OURS)]
        return code, next(iter(ours), "") or next((line for line in reversed(lines) if line), "")

    def leave(self) -> None:
        """Nothing more is asked of it; it may be at a login still. What keeps the connection is another process."""
        self._said.close()
        self._process.terminate()
        _leaving.append(self._process)
        _leaving[:] = [process for process in _leaving if process.poll() is None]


_leaving: Final[list[subprocess.Popen[bytes]]] = []


def parsed(url: str, source: str) -> RemoteHost:
    """The host that an address says; ``source``: who says it.

    Raises:
        UsageError: it is none.
    """
    found = _URL.fullmatch(url)
    if found is None or int(found["port"] or 1) not in range(1, 65536):
        raise UsageError(f"'{url}' is no address of a host ({source}): say ssh://[USER@]HOST[:PORT]")
    return RemoteHost(found["host"] or found["v6"], found["user"] or "", int(found["port"]) if found["port"] else None)


def chosen(flag: str | None, environment: Mapping[str, str]) -> RemoteHost | None:
    """The host that is meant by --remote or STILLUP_REMOTE; None if it is this one.

    Raises:
        UsageError: what says it makes no sense.
    """
    url, source = (flag, "--remote") if flag is not None else (environment.get(VARIABLE), VARIABLE)
    return parsed(url, source) if url else None


def service_there(
    remote: RemoteHost, name: str | None, runtime_dir: str | None, config: str | None, environment: Mapping[str, str]
) -> RemoteHost:
    """The service on that host that the words of a command mean; without any, the one that a command there means.

    Raises:
        UsageError: they mean nothing there.
    """
    if config is not None:
        raise UsageError(f"--config is a file of this host: say which service of {remote.url} is meant with --name")
    name = name or ("" if runtime_dir else environment.get("STILLUP_NAME", ""))
    return msgspec.structs.replace(remote, name=check_name(name) if name else "", runtime_dir=runtime_dir or "")


def _options() -> list[str]:
    kept, folder = ["-T", "-o", f"ServerAliveInterval={_ALIVE}"], runtime_place.own_folder("stillup-ssh", os.environ)
    if len(os.fsencode(folder)) <= _LONGEST_PATH and _PLAIN.fullmatch(folder):
        kept += ["-o", "ControlMaster=auto", "-o", f"ControlPersist={_KEPT}", "-o", f"ControlPath={folder}/%C"]
    return kept
