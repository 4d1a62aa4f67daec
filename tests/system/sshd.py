"""A host that ssh reaches: a real sshd on the loopback, with users of its own, and keys for them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.host.tcp_ports import own_port
from tests.system.access.open_interpreter import for_anybody
from tests.system.harness import DEADLINE, STILLUP, eventually, open_socket

SSH, SSHD = shutil.which("ssh"), shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
NEEDED = pytest.mark.skipif(os.geteuid() != 0 or not SSH or not SSHD, reason="needs root, ssh and sshd")
USERS = {"root": 0, "deploy": 54321, "stranger": 54322}

SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/keys/%u
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv PATH={path}
"""
CLIENT = """
Host web1
    HostName 127.0.0.1
    Port {port}
Host nobody-there
    HostName 127.0.0.1
    Port {closed}
Host *
    IdentityFile {folder}/key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known
    StrictHostKeyChecking yes
    GlobalKnownHostsFile none
"""


class Host:
    """``ssh://web1``, from an environment of one's own; ``ssh://nobody-there`` is a host where nothing listens."""

    process: subprocess.Popen[bytes]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "sshd.log"
        self.port, self._closed = own_port(), own_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("STILLUP_")},
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "XDG_RUNTIME_DIR": f"{folder}/login",
        }

    def let_in(self, user: str, *, only: str = "") -> None:
        """Let our key log in as that user; ``only``: to run that command, whatever is asked for."""
        key = (self.folder / "key.pub").read_text()
        (self.folder / "keys" / user).write_text(f'restrict,command="{only}" {key}' if only else key)

    def stillup(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command that may be about that host."""
        return subprocess.run(
            [STILLUP, *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def logins(self) -> int:
        """How often somebody has logged in."""
        return self.log.read_text().count("Accepted publickey")

    def make(self, path: Sequence[str]) -> None:
        """Keys, users and configurations."""
        for name in ("keys", "bin"):
            (self.folder / name).mkdir()
        (self.folder / "login").mkdir(mode=0o700)
        for name in ("key", "host"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name], check=True)
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {(self.folder / 'host.pub').read_text()}")
        users = [f"{user}:*:{uid}:{uid}::{self.folder}:/bin/sh" for user, uid in USERS.items()]
        users.append("sshd:*:54320:65534::/run/sshd:/usr/sbin/nologin")
        (self.folder / "passwd").write_text("\n".join([*users, ""]))
        (self.folder / "sshd_config").write_text(
            SERVER.format(folder=self.folder, port=self.port, path=":".join([*path, "/usr/bin", "/bin"]))
        )
        (self.folder / "ssh_config").write_text(CLIENT.format(folder=self.folder, port=self.port, closed=self._closed))
        ssh = self.folder / "bin" / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec {SSH} -F {self.folder}/ssh_config "$@"\n')
        ssh.chmod(0o755)

    def end(self) -> None:
        """Let nobody come any more, and end the connections that are kept."""
        self.process.terminate()
        self.process.wait(DEADLINE)
        self.hang_up()

    def hang_up(self) -> None:
        """End the connections that are kept."""
        for sock in (self.folder / "login" / "stillup-ssh").glob("*"):
            argv = [str(SSH), "-S", str(sock), "-O", "exit", "x"]
            subprocess.run(argv, capture_output=True, check=False, timeout=DEADLINE)


@contextlib.contextmanager
def host(path: Sequence[str] = (os.path.dirname(STILLUP),)) -> Iterator[Host]:
    """Have it there; ``path``: where commands are found there, before /usr/bin."""
    # ssh's sockets have short paths, and everybody's programs are to be reached by everybody.
    with tempfile.TemporaryDirectory(prefix="ssh-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        there = Host(folder)
        there.make(path)
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        begin = f"mount --bind {folder}/passwd /etc/passwd && exec {SSHD} -D -e -f {folder}/sshd_config"
        argv = ["unshare", "--mount", "--propagation", "private", *for_anybody(folder), "sh", "-c", begin]
        with there.log.open("wb") as log:
            there.process = process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            eventually(lambda: _is_there(there, process), f"sshd listens:\n{there.log.read_text()}")
            yield there
        finally:
            there.end()


def _is_there(there: Host, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, there.log.read_text()
    try:
        open_socket(f"127.0.0.1:{there.port}").close()
    except ConnectionRefusedError:
        return False
    return True
