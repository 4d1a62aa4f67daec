"""A program that is another user's from its first instruction on, whatever its environment says.

1. The rights go between fork(2) and execve(2) (``subprocess``, in C): setgroups(2), setregid(2), setreuid(2), and with
   them every capability (capabilities(7)). Variables that act before ``main``, such as LD_PRELOAD, first act in a
   process that has none any more; and until execve(2) nobody else may look into it, since it is not dumpable.
2. What a fork inherits from a thread is given up by a thread that does nothing else and ends at once: the bounding set,
   inheritable and ambient capabilities, and the session keyring. The other threads keep theirs.
3. ``NoNewPrivs`` is set, so that no set-user-id program and no file's capabilities bring anything back.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Final

from stillup.errors import UsageError
from stillup.host.accounts import Account
from stillup.host.libc import LIBC, check, prctl

_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_MOST_CAPABILITIES: Final = 64
"""Bits of a set; the kernel says EINVAL to those that it does not have."""
_CAPABILITY_VERSION: Final = 0x20080522
"""``_LINUX_CAPABILITY_VERSION_3``: two words a set."""
_KEYCTL_JOIN_SESSION_KEYRING: Final = 1
_KEYCTL: Final = {
    ("aarch64", 8): 219,
    ("aarch64", 4): 311,
    ("armv6l", 4): 311,
    ("armv7l", 4): 311,
    ("armv8l", 4): 311,
    ("i686", 4): 288,
    ("loongarch64", 8): 219,
    ("ppc64le", 8): 271,
    ("riscv64", 8): 219,
    ("s390x", 8): 280,
    ("x86_64", 8): 250,
    ("x86_64", 4): 288,
}
"""The number of keyctl(2) by machine and bytes of a pointer; glibc has no function for it."""


class _Header(ctypes.Structure):
    """``__user_cap_header_struct``."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    """``__user_cap_data_struct``."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def start_as(
    account: Account, argv: Sequence[str], environment: Mapping[str, str], *, stdin: int, stdout: int, stderr: int
) -> int:
    """Start a program as another user, at the head of a session of its own; its pid. It is the caller's to reap.

    The signals that are blocked in the caller's thread are blocked in it, too. Needs CAP_SETUID and CAP_SETGID, and
    CAP_SETPCAP for an empty bounding set, which means nothing beside ``NoNewPrivs``. Blocks until its exec has begun.

    Raises:
        OSError: it could not be started, or not as that user (EPERM; EINVAL: its number means nothing here).
        ValueError: the environment has a name or value that there cannot be.
    """
    started: list[int | BaseException] = []

    def start() -> None:
        try:
            _give_up_what_is_inherited()
            process = subprocess.Popen(  # noqa: S603 - our own words
                argv,
                env=environment,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                cwd="/",  # ours may be where that user has no way to: files there would be a relative name away
                user=account.uid,
                group=account.gid,
                extra_groups=[
                    account.gid,
                    *account.groups,
                ],  # as initgroups(3); Python 3.12.0 passes over an empty list
            )
            process.returncode = 0  # it is not for this object to wait for it
            started.append(process.pid)
        except BaseException as error:  # noqa: BLE001 - it is raised where the caller waits
            started.append(error)

    thread = threading.Thread(target=start, name="drop")
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, f"no thread: {error}") from error
    thread.join()
    (result,) = started
    if isinstance(result, BaseException):
        raise result
    return result


def _give_up_what_is_inherited() -> None:
    """Take from this thread what its children are not to have; it may still become another user.

    Raises:
        OSError: the kernel cannot (before Linux 4.3).
    """
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for capability in range(_MOST_CAPABILITIES):
        try:
            prctl(_PR_CAPBSET_DROP, capability)
        except OSError:  # past the last one; or we have no CAP_SETPCAP, as in some containers
            break
    header, sets = _Header(_CAPABILITY_VERSION, 0), (_Sets * 2)()
    check(LIBC.capget(ctypes.byref(header), sets))
    for half in sets:
        half.inheritable = 0  # what is not inheritable is not ambient, either
    check(LIBC.capset(ctypes.byref(header), sets))
    join_new_keyring()


def join_new_keyring() -> None:
    """Have a session keyring that is nobody else's (session-keyring(7)), in this thread and in its children.

    Refused where a container's seccomp filter refuses it: to whoever would read the keyring, too.
    """
    number = _KEYCTL.get((os.uname().machine, ctypes.sizeof(ctypes.c_void_p)))
    if number is not None:
        LIBC.syscall(ctypes.c_long(number), ctypes.c_long(_KEYCTL_JOIN_SESSION_KEYRING), ctypes.c_void_p(None))


def try_out(account: Account) -> None:
    """See that we may start a program as that user. Blocks.

    Raises:
        UsageError: we may not.
    """
    if os.geteuid() != 0:
        raise UsageError("--worker-user needs root: nobody else may start a process as another user")
    command = shutil.which("true", path=os.defpath)
    if command is None:
        return  # the first worker will tell
    try:
        nothing = subprocess.DEVNULL
        pid = start_as(account, [command], {}, stdin=nothing, stdout=nothing, stderr=nothing)
    except OSError as error:
        groups = ",".join(map(str, account.groups))
        who = f"uid {account.uid}, gid {account.gid}" + (f" and groups {groups}" if groups else "")
        raise UsageError(f"--worker-user: no process can be started as {who}: {error.strerror}") from error
    with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored
        os.waitpid(pid, 0)
