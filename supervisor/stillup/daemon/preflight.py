"""What can be known of a start before it: whether this machine, these options and this app will do."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from stillup.core.hook_settings import HookKind
from stillup.core.model import Release, Worker
from stillup.daemon.settings.config import Settings
from stillup.daemon.settings.release_resolver import resolve
from stillup.daemon.state import own_sockets
from stillup.daemon.workers import hook_processes, takeover
from stillup.daemon.workers.worker_program import why_no_module
from stillup.errors import PeerError, Refused, Unavailable, UsageError
from stillup.host import log_file, processes, program_run
from stillup.host.bind_clashes import AddressClaim, claim_of, clash
from stillup.host.processes import start_trouble, started
from stillup.host.runtime_directory import RuntimeDirectory, read_file
from stillup.host.sockets import check_owner, open_listener, try_bind
from stillup.wire import record_format
from stillup.wire.address import Bind
from stillup.wire.plain_text import escaped_lines
from stillup.wire.record_format import ReexecState
from stillup.wire.runtime_paths import CONTROL, RECORD, runtime_directory

LONGEST_PATH: Final = 107
"""Bytes of a socket's path (unix(7))."""
MORE_FOR_ITS_END: Final = 8.0
"""Seconds, beyond those for its boot, that an app which was asked its health has to end."""
LOOK_DEADLINE: Final = 30.0
"""Seconds for a look at whether a program is there."""
APP_CHECK: Final = "stillup.worker.app_check"
MOST_OUTPUT: Final = 1024 * 1024
"""Bytes that are shown of what an app writes while it is loaded, the last of them."""


def try_out(settings: Settings, reexec_state: ReexecState) -> int:
    """Say whether this program could go on where another one is to leave off; the exit code.

    Raises:
        Refused: it could not.
    """
    resolve(settings)
    _try_log(settings)
    if runtime_path(settings) != reexec_state.path:
        message = f"its runtime directory would be {runtime_path(settings)}, not {reexec_state.path}"
        raise Refused(message, code="trial-failed")
    known = {(listener.name, listener.bind) for listener in reexec_state.record.listeners}
    for bind in settings.binds:
        check_owner(bind)
        if (bind.name, str(bind.address)) not in known:  # it would be bound anew: now is the time to fail
            open_listener(bind, settings.backlog).close()
    runtime = RuntimeDirectory(reexec_state.path, reexec_state.lock, reexec_state.record.made_directory)
    own_sockets.try_out(runtime, takeover.admitting(reexec_state.record, settings.rights), reexec_state)
    return 0


def runtime_path(settings: Settings) -> str:
    """The runtime directory.

    Raises:
        UsageError: no socket could be bound in it.
    """
    path = settings.runtime_dir or runtime_directory(settings.name, os.geteuid(), os.environ)
    if len(os.fsencode(f"{path}/{CONTROL}")) > LONGEST_PATH:
        raise UsageError(f"the runtime directory {path} is too long for a socket's path; choose a --runtime-dir")
    return path


def has_living_workers(directory: str) -> bool:
    """Whether workers live on that a supervisor has left in that runtime directory: a start would take them over."""
    try:
        record = record_format.decode(read_file(f"{directory}/{RECORD}", (0, os.geteuid())))
        if record.boot != processes.boot_id():
            return False
        for worker in record.fleet.workers.values():
            process = processes.find(worker.pid, worker.started) if worker.pid is not None else None
            if process is not None:
                process.close()
                return True
    except (OSError, PeerError):  # none, or one that says nothing
        pass
    return False


def check(settings: Settings) -> None:
    """Look at everything that can be looked at without starting, and load the app.

    Raises:
        Refused: the service could not start.
    """
    check_platform()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored it would hide how a process has ended
    release = resolve(settings)
    _try_log(settings)
    _try_binds(settings)
    _try_hooks(release, settings)
    _load(release, settings)


def _try_log(settings: Settings) -> None:
    """See that the log file could be opened.

    Raises:
        Refused: it could not.
    """
    if settings.log.file:
        log_file.try_log(settings.log.file, settings.rights.worker)


def _try_binds(settings: Settings) -> None:
    """See that all binds could be had, one beside the other.

    Raises:
        Unavailable: one could not.
    """
    with contextlib.ExitStack() as tried:
        claims: list[tuple[Bind, AddressClaim]] = []
        for bind in settings.binds:
            try:
                sock = try_bind(bind)
            except Unavailable as error:
                if bind not in _held_by_service(settings):
                    raise _clashing(bind, claims, None) or error from None
                sock = None
            if sock is not None:
                tried.callback(sock.close)
            if taken := _clashing(bind, claims, sock):
                raise taken
            claims.append((bind, claim_of(bind, sock)))


def _clashing(
    bind: Bind, claims: Sequence[tuple[Bind, AddressClaim]], sock: socket.socket | None
) -> Unavailable | None:
    """What is wrong with a bind if another of the same service would have its address."""
    claim = claim_of(bind, sock)
    other = next((one for one, there in claims if clash(claim, there)), None)
    if other is None:
        return None
    return Unavailable(f"cannot bind {bind.address}: '{other.name}', another bind of this service, has it")


def _held_by_service(settings: Settings) -> list[Bind]:
    """The binds that the service has which runs under this name, or whose workers wait for their next supervisor."""
    path = runtime_path(settings)
    try:
        record = record_format.decode(read_file(f"{path}/{RECORD}", {0, os.geteuid()}))
    except (OSError, PeerError, Refused):
        return []
    if not _listens(f"{path}/{CONTROL}") and not any(map(_lives, record.fleet.workers.values())):
        return []
    held = {(listener.name, listener.bind) for listener in record.listeners}
    return [bind for bind in settings.binds if (bind.name, str(bind.address)) in held]


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        return sock.connect_ex(path) in (0, errno.EAGAIN)


def _lives(worker: Worker) -> bool:
    try:
        return worker.pid is not None and started(worker.pid) == worker.started
    except OSError:
        return False


def _try_hooks(release: Release, settings: Settings) -> None:
    """See that the programs are there that are to be run around a rollout; none of them is run.

    By a process that looks as they will: in the release's directory and environment, as the workers' user.

    Raises:
        Refused: one is not.
    """
    for kind in HookKind:
        words = settings.policy.hooks.of(kind)
        if not words:
            continue
        argv = (release.python, "-P", "-m", hook_processes.MODULE, hook_processes.LOOK, release.directory, *words)
        try:
            finished = program_run.run(
                argv, release.environment, b"", deadline=LOOK_DEADLINE, most=MOST_OUTPUT, account=settings.rights.worker
            )
        except TimeoutError:
            raise Refused(f"[hooks] {kind}: not looked for within {LOOK_DEADLINE:g} s", code="release") from None
        except (OSError, ValueError) as error:
            raise Refused(f"cannot start {release.python}: {start_trouble(error)}", code="release") from error
        if finished.how != "exited 0":
            said = finished.stderr.decode(errors="replace")
            why = why_no_module(release.python, hook_processes.MODULE, said) or said.rstrip().rpartition("\n")[2]
            raise Refused(f"[hooks] {kind}: {why}", code="release")


def _load(release: Release, settings: Settings) -> None:
    """Have a process load the app that is what a worker is: with the release's environment, as the workers' user.

    With a health path the app is started there, asked, and shut down.

    Raises:
        Refused: it could not be loaded, or is not healthy.
    """
    told = {
        **{key: getattr(release, key) for key in ("app", "directory", "app_dir", "options")},
        "settings": msgspec.to_builtins(release.settings),
        "seconds": settings.policy.boot_timeout,
    }
    ends = MORE_FOR_ITS_END if release.settings.health_path else 0.0
    argv = (release.python, "-P", "-m", APP_CHECK)
    try:
        finished = program_run.run(
            argv,
            release.environment,
            json.dumps(told, default=dict).encode(),
            deadline=settings.policy.boot_timeout + ends,
            most=MOST_OUTPUT,
            account=settings.rights.worker,
        )
    except TimeoutError:
        message = f"the app was not loaded within {settings.policy.boot_timeout:g} s (--boot-timeout)"
        raise Refused(message, code="release") from None
    except (OSError, ValueError) as error:
        raise Refused(f"cannot start {release.python}: {start_trouble(error)}", code="release") from error
    wrote, failed = _shown(finished.stderr), finished.how != "exited 0"
    said, _, last = wrote.rstrip("\n").rpartition("\n")
    its_own = failed and last.startswith("the app ")
    if failed and not its_own and (why := why_no_module(release.python, APP_CHECK, wrote)):
        raise Refused(why, code="release")
    sys.stdout.write(_shown(finished.stdout))
    sys.stderr.write(f"{said}\n" if failed and said else "")
    if its_own:
        raise Refused(last, code="release")
    sys.stderr.write(f"{last}\n" if last else "")
    if failed:
        raise Refused(f"the app could not be loaded: its process {finished.how}", code="release")


def _shown(output: bytes) -> str:
    """What an app has written, for a terminal."""
    return escaped_lines(output.decode(errors="replace"))


def check_platform() -> None:
    """See that this is a kernel that we can live with.

    Raises:
        Refused: it is not.
    """
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        raise Refused("stillup needs Linux 5.10 or newer", code="platform")
