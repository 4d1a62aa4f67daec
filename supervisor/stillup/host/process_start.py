"""Starting processes: each by posix_spawn(3) as our own user, or by ``dropped_rights`` as another."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence

from stillup.host.accounts import Account
from stillup.host.dropped_rights import start_as
from stillup.host.processes import HANDLED, Process, hold, no_reaping


def spawn(
    argv: Sequence[str],
    environment: Mapping[str, str],
    stdout: int,
    stderr: int,
    *,
    stdin: int | None = None,
    account: Account | None = None,
) -> Process:
    """Start a child with the HANDLED signals blocked, and /dev/null as its stdin if it is given none.

    It leads a session, so that our terminal is not its: it can neither push input into that (TIOCSTI in ioctl_tty(2))
    nor take it. With ``account`` it is that user's, without any right of ours (``dropped_rights``). Blocks until the
    new program is found and its exec begins; not for an event loop's thread.

    Raises:
        OSError: it could not be started.
        ValueError: the environment has a name or value that there cannot be.
    """
    with no_reaping():
        if account is None:
            pid = _start(argv, environment, stdin, stdout, stderr)
        else:
            with _nothing_to_read() if stdin is None else contextlib.nullcontext(stdin) as given, _handled_blocked():
                pid = start_as(account, argv, environment, stdin=given, stdout=stdout, stderr=stderr)
        return hold_started(pid)


def hold_started(pid: int) -> Process:
    """Take hold of a child that has just been started, under ``no_reaping``; it is killed if that fails.

    Raises:
        OSError: there is no descriptor left.
    """
    try:
        return hold(pid)
    except OSError:
        # Without a pidfd it could not be ended safely later. It is not reaped yet, so its number is still its own.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _start(argv: Sequence[str], environment: Mapping[str, str], stdin: int | None, stdout: int, stderr: int) -> int:
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0) if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_DUP2, stdout, 1),
        (os.POSIX_SPAWN_DUP2, stderr, 2),
    ]

    def start(argv: Sequence[str], **session: bool) -> int:
        return os.posix_spawn(
            argv[0],
            list(argv),
            dict(environment),
            file_actions=actions,
            setsigmask=HANDLED,
            # CPython ignores these two for itself; a program expects the default.
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD],
            **session,  # type: ignore[arg-type]
        )

    try:
        return start(argv, setsid=True)
    except NotImplementedError:  # this Python was built for a C library before glibc 2.26
        command = shutil.which("setsid")
        if command is None:
            raise FileNotFoundError(errno.ENOENT, "the command setsid (util-linux) is not in PATH") from None
        # It forks where it would lead a group, so that it must not, and then is the same process all the way.
        return start([command, *argv])


@contextlib.contextmanager
def _nothing_to_read() -> Iterator[int]:
    fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _handled_blocked() -> Iterator[None]:
    """In this thread; a child has the mask of the thread that starts it."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
