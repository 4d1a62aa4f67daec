"""The units of this repository, put into a booted systemd as an operator would."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

import stillup
from tests.system.harness import ROOT, STILLUP, eventually
from tests.system.manager.booted_systemd import SHARED, Booted

UNITS = ROOT / "systemd"
CLONE_NEWNET = 0x40000000
ENVIRONMENT = f"[Service]\nEnvironment=PYTHONPATH={ROOT} PYTHONDONTWRITEBYTECODE=1\n"
"""The load's app is in this tree."""


class HasPid(Protocol):
    """A process, or who has one."""

    @property
    def pid(self) -> int: ...


class Shop:
    """The service `stillup@shop`. ``with`` starts it, and stops it, leaving nothing behind."""

    name = "shop"
    unit = "stillup@shop.service"

    def __init__(self, booted: Booted, app: str = "benchmarks.app:app", **settings: object) -> None:
        self.booted = booted
        self.folder = booted.shared / self.name
        self._settings = {"app": app, "workers": 2, "health-path": "/healthz", "access-log": False, **settings}
        self._settings.setdefault("bind", ["127.0.0.1:8000"])
        self._settings.setdefault("directory", f"{SHARED}/{self.name}")
        self._drop_ins = {"environment.conf": ENVIRONMENT}

    def drop_in(self, name: str, text: str) -> None:
        self._drop_ins[name] = text

    def hardened(self) -> None:
        """With the drop-in of this repository, in which what the tests are run with can be seen."""
        self.drop_in("hardening.conf", (UNITS / "hardening.conf").read_text())
        self.drop_in("seen.conf", self.seen())

    def seen(self) -> str:
        """A drop-in that lets what the tests are run with be seen where a home or /tmp would be hidden."""
        seen = " ".join(sorted({str(ROOT), sys.prefix, sys.base_prefix}))
        # Not ProtectHome=tmpfs: from 262 on others than root cannot enter that one.
        homes = "TemporaryFileSystem=/home:ro /root:ro,mode=0755 /run/user:ro"
        return f"[Service]\nProtectHome=no\n{homes}\nBindReadOnlyPaths={seen}\n"

    def install(self) -> None:
        """Write the user, the units, the drop-ins and the configuration."""
        self.folder.mkdir(exist_ok=True)
        (self.booted.shared / "sysusers.conf").write_text((UNITS / "sysusers.conf").read_text())
        assert self.booted.run("systemd-sysusers", f"{SHARED}/sysusers.conf").returncode == 0
        self.configure()
        folder = self._etc() / "systemd" / "system" / f"{self.unit}.d"
        if folder.exists():
            for old in folder.iterdir():
                old.unlink()
        for name, text in self._drop_ins.items():
            self.booted.write(f"{self.unit}.d/{name}", text)
        for file in UNITS.glob("stillup@.*"):
            self.booted.write(file.name, file.read_text().replace("/opt/stillup/bin/stillup", STILLUP))
        self.booted.systemctl("daemon-reload")

    def configure(self, **settings: object) -> None:
        """Write its configuration, with these settings changed."""
        self._settings.update(settings)
        folder = self._etc() / "stillup"
        folder.mkdir(exist_ok=True)
        lines = [f"{key} = {_toml(value)}" for key, value in self._settings.items()]
        (folder / f"{self.name}.toml").write_text("\n".join(lines) + "\n")

    def _etc(self) -> Path:
        return Path(f"/proc/{self.booted.pid}/root/etc")

    def __enter__(self) -> Self:
        self.install()
        self.booted.systemctl("start", self.unit)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop it; no process and no file is left."""
        self.booted.systemctl("stop", self.unit)
        assert self.processes() == [], self.log()
        assert not Path(f"/proc/{self.booted.pid}/root/run/stillup/{self.name}").exists()
        self.booted.run("systemctl", "reset-failed", self.unit)

    def processes(self) -> list[int]:
        """The processes in its control group, as seen from in there."""
        group = f"/proc/{self.booted.pid}/root/sys/fs/cgroup/system.slice/system-stillup.slice/{self.unit}/cgroup.procs"
        try:
            return [int(line) for line in Path(group).read_text(encoding="ascii").split()]
        except FileNotFoundError:
            return []

    def show(self, what: str) -> str:
        return self.booted.systemctl("show", "-P", what, self.unit).strip()

    def log(self) -> str:
        return self.booted.journal(self.unit)

    def status_of(self, uid: int, group: str, method: str, path: str) -> int:
        """What a user in a group is answered at the control socket."""
        curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, "--max-time", "10"]
        socket = ["--unix-socket", f"/run/stillup/{self.name}/control.sock", f"http://localhost{path}"]
        become = ["setpriv", f"--reuid={uid}", f"--regid={group}", "--clear-groups"]
        return int(self.booted.run(*become, *curl, *socket).stdout)

    def entries(self, *matches: str) -> list[dict[str, str]]:
        """What the journal has of it, with those fields, since it was started last."""
        return self.booted.entries(f"_SYSTEMD_INVOCATION_ID={self.show('InvocationID')}", *matches)

    def reload(self) -> None:
        self.booted.systemctl("reload", self.unit)

    def restart(self) -> None:
        self.booted.systemctl("restart", self.unit)

    def kill(self) -> None:
        """SIGKILL the supervisor, and wait until another one is ready."""
        pid = self.show("MainPID")  # before: it may be another one's soon
        self.booted.systemctl("kill", "-s", "KILL", "--kill-whom=main", self.unit)
        self.until_another(pid)

    def upgradable(self) -> None:
        """Have it run a copy of stillup, which can be replaced by another version of it."""
        self._versions = len(list(self.booted.shared.glob(f"{self.name}-stillup-*")))
        self._put_version()
        path = f"Environment=PYTHONPATH={SHARED}/{self.name}-stillup:{ROOT}"
        self.drop_in("upgradable.conf", f"[Service]\n{path}\n")

    def upgrade(self) -> None:
        """Put another version of stillup there, and let the supervisor replace itself by it: same pid."""
        pid = self.show("MainPID")
        self._put_version()
        assert f"runs stillup 0.0.{self._versions}" in self.cli("supervisor", "reexec")
        assert self.show("MainPID") == pid

    def _put_version(self) -> None:
        self._versions += 1
        link = self.booted.shared / f"{self.name}-stillup"
        folder = self.booted.shared / f"{self.name}-stillup-{self._versions}"
        shutil.copytree(Path(stillup.__file__).parent, folder / "stillup", ignore=shutil.ignore_patterns("*.pyc"))
        init = folder / "stillup" / "__init__.py"
        init.write_text(re.sub('__version__ = ".*"', f'__version__ = "0.0.{self._versions}"', init.read_text()))
        fresh = link.with_suffix(".new")
        fresh.symlink_to(folder.name)
        fresh.rename(link)

    def until_another(self, pid: str) -> None:
        """Wait until another supervisor than that is ready."""
        eventually(
            lambda: self.show("MainPID") not in ("0", pid) and self.show("SubState") == "running",
            "another one is ready",
        )

    def cli(self, *words: str, user: str = "root") -> str:
        done = self.booted.run("setpriv", f"--reuid={user}", "--clear-groups", STILLUP, *words, "--name", self.name)
        return done.stdout + done.stderr


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(_toml(one) for one in value)}]"
        case dict():
            return f"{{{', '.join(f'{key} = {_toml(one)}' for key, one in value.items())}}}"
        case str():
            return f'"{value}"'
        case _:
            return str(value)


def in_network_of(process: HasPid, work: Callable[[], None]) -> None:
    """Do it in a thread whose sockets are in that process's network namespace (setns(2)), as those of its threads."""
    failures: list[BaseException] = []

    def inside() -> None:
        try:
            fd = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(fd)
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
