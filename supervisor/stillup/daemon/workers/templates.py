"""Templates: processes that workers are forked from (``worker.template``), one for each way in which workers start.

1. What a started worker would inherit is the key: program, environment, user, and all that this process passes on to
   its children (limits, processors, directory, cgroup). So a forked worker has the same.
2. A template that is not what it should be (stopped, killed, of another version, out of processes) costs a moment: the
   worker is started as a program of its own, the reason is logged, and nobody asks for RETRY seconds.
3. Whom a template says it has forked is held only if it is a child of ours that nobody holds yet.

All of it blocks, and is for the one thread that starts workers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from stillup.daemon.workers.program import Program
from stillup.errors import PeerError
from stillup.host import descriptors, forking
from stillup.host.process_start import hold_started, spawn
from stillup.host.processes import Process, is_unheld_child, no_reaping
from stillup.wire.plain_text import escaped
from stillup.wire.template_messages import (
    PACKET_LIMIT,
    VARIABLE,
    ForkAsked,
    Forked,
    ForkFailed,
    FromTemplate,
    Prepared,
    Stale,
    decode_said,
    encode,
    encode_imports,
)

logger = logging.getLogger("stillup")

MOST: Final = 2
"""Templates that are kept: of the release that serves, and of the one that comes or came before."""
PREPARED_WITHIN: Final = 10.0
"""Seconds for a template's imports."""
FORKED_WITHIN: Final = 2.0
"""Seconds for its answer."""
RETRY: Final = 60.0
"""Seconds until a key is tried again that had no template."""
OUTPUT: Final = 4096
"""Bytes of what a template wrote before it failed that are looked at."""

Key = tuple[object, ...]


class Forker(msgspec.Struct, eq=False):
    """A process that forks, a template or a preloader, and our end of its socket. Owns both."""

    process: Process
    sock: socket.socket
    is_broken: bool = False
    """Whether it was asked in vain, and is to end."""

    def ask(self, message: ForkAsked, fds: Sequence[int]) -> FromTemplate:
        descriptors.send(self.sock, encode(message), fds)
        return self.hear()

    def hear(self) -> FromTemplate:
        """What it says next.

        Raises:
            PeerError: it has ended, or says what none does.
            OSError: TimeoutError if it says nothing in time.
        """
        packet, fds = descriptors.receive(self.sock, PACKET_LIMIT, 0)
        descriptors.close(fds)
        if not packet:
            raise PeerError("it has ended")
        return decode_said(packet)

    def close(self) -> None:
        """End it. Whom it may have forked meanwhile is not let in, and ends; both are reaped as what nobody holds."""
        self.process.kill()
        self.process.close()
        self.sock.close()


class Templates:
    """Those of one supervisor. Owns them until ``close``."""

    def __init__(self) -> None:
        """Begin with none."""
        self._templates: dict[Key, Forker] = {}
        """The last one used last."""
        self._not_before: dict[Key, float] = {}
        """When a key is tried again that had none; seconds on the monotonic clock."""

    def fork(self, wanted: Program, stdin: int | None, stdout: int, stderr: int) -> Process | None:
        """Have a worker forked; None if it has to be started. The descriptors stay the caller's.

        Without ``stdin`` it has nothing to read.
        """
        common = tuple(sorted(wanted.environment.items()))
        whose = (wanted.account.uid, wanted.account.gid, *wanted.account.groups) if wanted.account else ()
        key = (wanted.argv[:-1], common, whose, wanted.warm, wanted.imports, *forking.inherited())
        if self._not_before.get(key, 0.0) > time.monotonic():
            return None
        try:
            process = self._fork(
                key, wanted, ask_for(wanted), (stdout, stderr) if stdin is None else (stdout, stderr, stdin)
            )
        except (PeerError, OSError) as error:
            self._drop(key)
            now = time.monotonic()
            self._not_before = {other: at for other, at in self._not_before.items() if at > now} | {key: now + RETRY}
            logger.warning("workers are started one by one, as none can be forked: %s", error or "no answer in time")
            return None
        self._not_before.pop(key, None)
        return process

    def _fork(self, key: Key, wanted: Program, asked: ForkAsked, fds: Sequence[int]) -> Process:
        if (template := self._templates.pop(key, None)) is not None:
            self._templates[key] = template  # the last one used
            try:
                said, process = fork_asked(template, asked, fds)
            except (PeerError, BrokenPipeError, ConnectionResetError) as error:  # somebody has ended it
                logger.debug("the template %d: %s", template.process.pid, error)
            else:
                if process is not None:
                    return process
                logger.debug("the template %d is of what %s was", template.process.pid, said)
            self._drop(key)
        self._templates[key] = template = _prepare(wanted)
        for oldest in list(self._templates)[:-MOST]:
            self._drop(oldest)
        _, process = fork_asked(template, asked, fds)
        if process is None:
            raise PeerError("what it has imported is changing")
        return process

    def _drop(self, key: Key) -> None:
        if (template := self._templates.pop(key, None)) is not None:
            template.close()

    def close(self) -> None:
        """End them all; workers stay."""
        for key in tuple(self._templates):
            self._drop(key)


def ask_for(wanted: Program) -> ForkAsked:
    """What a program's own part is told as."""
    return ForkAsked(list(wanted.argv), wanted.own_environment, own_keyring=wanted.account is not None)


def fork_asked(forker: Forker, asked: ForkAsked, fds: Sequence[int]) -> tuple[str, Process | None]:
    """The worker that a process has forked; or the path of what it has imported and is another by now.

    Raises:
        PeerError: it has ended, or says what it must not.
        OSError: it cannot fork; TimeoutError if it says nothing in time.
    """
    with no_reaping():
        match forker.ask(asked, fds):
            case Forked(pid) if is_unheld_child(pid):
                return "", hold_started(pid)
            case ForkFailed(number):
                raise OSError(number, os.strerror(number))
            case Stale(path):
                return path, None
            case said:
                raise PeerError(f"it said {said!r}")


def _prepare(wanted: Program) -> Forker:
    """Start a template.

    Raises:
        OSError: it could not be started; TimeoutError if it takes too long.
        PeerError: it cannot fork, or has ended; with its last words.
    """
    forking.become_subreaper()  # so that this process is the parent of what it forks
    with contextlib.ExitStack() as undo:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        undo.callback(ours.close)
        with theirs, _pipe() as (read, write):
            argv = (*wanted.argv[:-1], f"{wanted.argv[-1].rpartition(':')[0]}:template")
            environment = {**wanted.environment, VARIABLE: encode_imports(wanted.warm, wanted.imports)}
            process = spawn(argv, environment, write, write, stdin=theirs.fileno(), account=wanted.account)
            process.give_up_status()  # it may end at any time, and hides no other that is to be reaped
            template = Forker(process, ours)
            undo.callback(template.close)
            theirs.close()  # so that its end is seen
            ours.settimeout(PREPARED_WITHIN)
            try:
                _check(template.hear())
            except PeerError as error:
                raise PeerError(": ".join(["a template", str(error), *_last_line(read)])) from error
        ours.settimeout(FORKED_WITHIN)
        undo.pop_all()
    return template


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = descriptors.pipe()
    try:
        yield ends
    finally:
        descriptors.close(ends)


def _check(said: FromTemplate) -> None:
    """Whether a template can fork.

    Raises:
        PeerError: it cannot.
    """
    if not isinstance(said, Prepared):
        raise PeerError(f"it said {said!r}")
    for module, why in said.missing.items():
        logger.warning("--warm %s: %s", module, escaped(why))
    if said.threads != 1:
        raise PeerError("it has more than one thread")


def _last_line(read: int) -> list[str]:
    """Of what it wrote, if there is anything."""
    try:
        lines = os.read(read, OUTPUT).decode(errors="replace").splitlines()
    except BlockingIOError:
        return []
    return [escaped(line) for line in lines[-1:]]
