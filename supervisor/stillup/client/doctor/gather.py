"""Looks at the system for ``stillup doctor``. A look changes nothing and never fails: what is hidden is left out."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import grp
import importlib.metadata
import os
import platform
import pwd
import re
import resource
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import psutil

from stillup.client import orphans, runtime_place
from stillup.client.client_errors import NotRunningError, ProblemError
from stillup.client.control_client import Client
from stillup.client.doctor import gather_protections
from stillup.client.doctor.facts import (
    ConnectResult,
    DirectoryFacts,
    EnvironmentFacts,
    Facts,
    FileFacts,
    KernelFacts,
    SecurityFacts,
    SupervisorFacts,
)
from stillup.client.unit_facts import shown, socket_units
from stillup.errors import StillupError
from stillup.host.peer import SO_PEERPIDFD
from stillup.wire.runtime_paths import CONTROL, HANDOFF, LOCK, RECORD

T = TypeVar("T")

PATIENCE: Final = 5.0
"""Seconds for an answer, of a supervisor or of a program."""
LOG_TAIL: Final = 256 * 1024
"""Bytes of a log, from its end, that are looked at."""
MOST_DENIALS: Final = 5
FILES: Final = (CONTROL, "observe.sock", HANDOFF, LOCK, RECORD)
_CLOSE_RANGE: Final = 436
"""The number of close_range(2) on every architecture, since Linux 5.9; Python has no call for it."""
_FAILS: Final = (OSError, ValueError, LookupError, ImportError, psutil.Error, subprocess.SubprocessError, StillupError)
"""What a look may come to where there is nothing to see."""


def gather(directory: str) -> Facts:
    """Everything that is to be seen from here about the service in that runtime directory."""
    service = _service(directory)
    return Facts(
        os.geteuid(),
        _place(directory),
        service,
        _kernel(),
        _security(directory),
        _environment(),
        gather_protections.look(directory, service),
    )


def _look(look: Callable[[], T], otherwise: T) -> T:
    with contextlib.suppress(*_FAILS):
        return look()
    return otherwise


# The runtime directory


def _place(path: str) -> DirectoryFacts:
    there = _file(path)
    parent = Path(path).absolute().parent
    while not os.path.exists(parent) and parent != parent.parent:
        parent = parent.parent
    return DirectoryFacts(
        path,
        there,
        _file(str(Path(path).absolute().parent)),
        open=os.access(path, os.R_OK | os.X_OK, effective_ids=True),
        can_be_made=there is not None or os.access(parent, os.W_OK | os.X_OK, effective_ids=True),
        hazards=_look(lambda: tuple(runtime_place.hazards(path)), ()),
        files=tuple(file for name in FILES if (file := _file(f"{path}/{name}")) is not None),
        lock_holder=_look(lambda: _locked_by(f"{path}/{LOCK}"), None),
        orphans=_look(lambda: _orphans(path), ()),
        lingers=_look(_lingers, None),
    )


def _file(path: str) -> FileFacts | None:
    try:
        seen = os.lstat(path)
    except OSError:
        return None
    kinds = ((stat.S_ISSOCK, "socket"), (stat.S_ISDIR, "directory"))
    kind = next((word for is_kind, word in kinds if is_kind(seen.st_mode)), "file")
    return FileFacts(
        path.rpartition("/")[2],
        kind,
        stat.S_IMODE(seen.st_mode),
        seen.st_uid,
        seen.st_gid,
        _look(lambda: pwd.getpwuid(seen.st_uid).pw_name, ""),
        _look(lambda: grp.getgrgid(seen.st_gid).gr_name, ""),
        _answer(path) if kind == "socket" else None,
    )


def _answer(path: str) -> ConnectResult:
    # A stream socket: handoff.sock is of another type, which the kernel says (EPROTOTYPE) only when something listens,
    # and before it is a connection. So its supervisor does not take us for a worker.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return ConnectResult.REFUSED
        except PermissionError:
            return ConnectResult.DENIED
        except OSError as error:
            return ConnectResult.YES if error.errno in (errno.EPROTOTYPE, errno.EAGAIN) else ConnectResult.UNKNOWN
    return ConnectResult.YES


def _locked_by(path: str) -> int | None:
    # By the kernel's list of locks: to try the lock ourselves could keep a supervisor that starts now from having it.
    seen = os.stat(path)
    inode = f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}:{seen.st_ino}"
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5] == inode:
            return int(words[4])
    return None


def _orphans(path: str) -> tuple[str, ...]:
    with orphans.orphans(path) as left:
        return tuple(f"{one.name} pid {one.process.pid}" for one in left)


def _lingers() -> bool | None:
    folder = Path("/var/lib/systemd/linger")
    return (folder / pwd.getpwuid(os.geteuid()).pw_name).exists() if folder.is_dir() else None


# The supervisor


def _service(directory: str) -> SupervisorFacts:
    client = Client(directory, timeout=PATIENCE)
    try:
        status = client.status()
    except NotRunningError as error:
        plain = str(error) == f"no supervisor runs in {directory}"
        return SupervisorFacts(runs=False, trouble="" if plain else str(error))
    except ProblemError as error:
        role, unseen = _role(client)
        denied = error.code == "not-permitted"
        return SupervisorFacts(runs=True, trouble=str(error), denied=denied, role=role, unseen=unseen)
    except StillupError as error:
        return SupervisorFacts(
            runs=True, trouble=str(error), pid=_look(lambda: _locked_by(f"{directory}/{LOCK}"), None)
        )
    role, unseen = _role(client)
    started_with = _look(lambda: psutil.Process(status.pid).environ(), None)
    return SupervisorFacts(
        runs=True,
        pid=status.pid,
        uid=_look(lambda: psutil.Process(status.pid).uids().effective, None),
        version=status.version,
        state=status.state,
        workers=sum(len(generation.workers) for generation in status.generations),
        births=tuple(
            sorted({one.birth for generation in status.generations for one in generation.workers if one.birth})
        ),
        unmoved=tuple(status.crossing.unmoved),
        worker_pids=tuple(one.pid for generation in status.generations for one in generation.workers if one.pid),
        addresses=tuple(listener.address for listener in status.listeners),
        unreachable=tuple(f"{one.address}: {one.trouble}" for one in status.listeners if one.trouble),
        rejected=status.rollout if status.rollout is not None and status.rollout.outcome == "aborted" else None,
        role=role,
        unseen=unseen,
        backlog=_look(lambda: _backlog(psutil.Process(status.pid).cmdline()), None),
        files=_look(lambda: psutil.Process(status.pid).rlimit(psutil.RLIMIT_NOFILE), None),
        managed="INVOCATION_ID" in started_with if started_with is not None else None,
        notifies="NOTIFY_SOCKET" in started_with if started_with is not None else None,
        stop_command=status.stop_command,
        stop_delay=status.stop_delay,
        stop_budget=status.stop_budget,
        stop_allowed=_look(lambda: _stop_allowed(status.stop_command), None),
        sockets=_look(lambda: socket_units(status.stop_command), ()),
    )


def _stop_allowed(stop_command: str) -> float | None:
    """TimeoutStopSec= of its unit, in seconds: systemctl shows it as a span of time (systemd.time(7))."""
    text = shown(stop_command, "TimeoutStopUSec")
    if not text or text == "infinity":
        return None
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    parts = [re.fullmatch(r"([0-9.]+)(us|ms|s|min|h|d)", part) for part in text.split()]
    return sum(float(part[1]) * units[part[2]] for part in parts if part is not None)


def _role(client: Client) -> tuple[str, str]:
    """Our role there, and why we may look and no more; empty where that is not known, or not so."""
    try:
        me = client.whoami()
    except StillupError:
        return "", ""
    return me.role, me.unseen


def _backlog(argv: list[str]) -> int | None:
    """What --backlog says there; in a file or a variable it is not looked for."""
    words = " ".join(argv)
    match = re.search(r" --backlog[ =](\d{1,9})( |$)", words)
    return int(match[1]) if match else None


# The host


def _kernel() -> KernelFacts:
    probes = {"pidfd_open": _pidfd, "memfd_create": _memfd, "close_range": _close_range}
    return KernelFacts(
        platform.release(),
        tuple(name for name, probe in probes.items() if not _look(probe, otherwise=False)),
        peer_pidfd=_look(_peer_pidfd, otherwise=False),
        own_users=_look(lambda: _read("/proc/self/uid_map").split() == ["0", "0", "4294967295"], otherwise=True),
        somaxconn=_look(lambda: int(_read("/proc/sys/net/core/somaxconn")), None),
        files=_look(lambda: resource.getrlimit(resource.RLIMIT_NOFILE), None),
        clock=_look(lambda: _read("/sys/devices/system/clocksource/clocksource0/current_clocksource").strip(), None),
    )


def _pidfd() -> bool:
    os.close(os.pidfd_open(os.getpid()))
    return True


def _memfd() -> bool:
    os.close(os.memfd_create("stillup-doctor"))
    return True


def _close_range() -> bool:
    last = 2**31 - 1  # no descriptor has that number, so none is closed
    return bool(ctypes.CDLL(None).syscall(_CLOSE_RANGE, last, last, 0) == 0)


def _peer_pidfd() -> bool:
    here, there = socket.socketpair()
    with here, there:
        os.close(int.from_bytes(here.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4), sys.byteorder))
    return True


# Who else has a say


def _security(directory: str) -> SecurityFacts:
    enforcing = _look(lambda: _read("/sys/fs/selinux/enforce").strip(), "")
    logs = [text for look in (_audit_log, _journal, _kernel_log) if (text := _look(look, "")) != ""]
    ours = re.compile(rf'comm="(stillup|python[0-9.]*)"|{re.escape(directory)}/')
    denied = re.compile(r'avc: +denied|apparmor="DENIED"')
    lines = dict.fromkeys(line for text in logs for line in text.splitlines() if denied.search(line))
    return SecurityFacts(
        {"1": "enforcing", "0": "permissive"}.get(enforcing, ""),
        _look(lambda: _read("/proc/self/attr/apparmor/current"), "").partition(" ")[0].strip(),
        tuple(line.strip() for line in lines if ours.search(line))[-MOST_DENIALS:],
        logs_read=bool(logs),
    )


def _audit_log() -> str:
    with open("/var/log/audit/audit.log", "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL))
        return file.read().decode(errors="replace")


def _journal() -> str:
    argv = ["journalctl", "-b", "-q", "--no-pager", "-n", "2000", "-o", "cat", "_TRANSPORT=kernel", "_TRANSPORT=audit"]
    return _run(argv)


def _kernel_log() -> str:
    """The kernel's ring buffer: each read is one record (``/dev/kmsg`` in the kernel's ABI documents)."""
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return "\n".join(_records(fd))
    finally:
        os.close(fd)


def _records(fd: int) -> Iterator[str]:
    while True:
        try:
            yield os.read(fd, 8192).decode(errors="replace")
        except BrokenPipeError:  # this record was overwritten before we came to it
            continue
        except OSError:
            return


# What is installed


def _environment() -> EnvironmentFacts:
    return EnvironmentFacts(
        sys.version_info[:2],
        _look(lambda: importlib.metadata.version("uvicorn"), ""),
        _look(_systemd, None) if os.path.isdir("/run/systemd/system") else None,
    )


def _systemd() -> int | None:
    match = re.match(r"systemd (\d+)", _run(["systemctl", "--version"]))
    return int(match[1]) if match else None


def _run(argv: list[str]) -> str:
    program = shutil.which(argv[0])
    if program is None:
        return ""
    words = [program, *argv[1:]]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)  # noqa: S603 - ours
    return done.stdout.decode(errors="replace")


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")
