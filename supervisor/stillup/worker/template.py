"""A template: a worker that has imported what all of them need, and then forks each as the supervisor asks for it.

1. It is started as a worker is, with ``wire.template_messages.VARIABLE`` in its environment and the supervisor's socket
   as its stdin. It knows no app and runs no code of one.
2. A worker that it forks is what a started one is: parent, session, command line, environment, descriptors. The
   supervisor makes another template wherever a started one would have inherited something else.
3. Before each fork it looks at every file that it has imported, and at the directories that imports are looked for in.
   If one is not as it was it says so and ends: nobody runs code that is not on the disk any more.
4. It has one thread, whoever else is of its user may not look into it, and at the end of its socket it ends.
"""

from __future__ import annotations

import gc
import importlib
import logging.config  # noqa: F401 - which uvicorn imports only when it configures its log
import os
import signal
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from stillup.host import descriptors, dropped_rights, forking
from stillup.wire.template_messages import (
    DESCRIPTORS,
    PACKET_LIMIT,
    VARIABLE,
    ForkAsked,
    Forked,
    ForkFailed,
    FromTemplate,
    Prepared,
    Stale,
    decode_asked,
    decode_imports,
    encode,
)
from stillup.worker import gc_pause

Look = tuple[int, int, int]
"""When a file was changed (ns), its size, and its number."""
Looks = Mapping[bytes, Look | None]
"""By paths of our own, which lie side by side: those of the modules are all over the memory that is common to all, and
whoever uses one, or forgets it, gets a copy of its page."""


def serve() -> None:
    """Fork workers for as long as the supervisor asks; returns in these alone."""
    sock = take_socket()
    warm, wanted = decode_imports(os.environ.pop(VARIABLE))
    forking.hide_memory(hidden=True)
    missing = import_all(warm)
    import_all(wanted)
    gc.freeze()  # what is not gone through is not written to, and stays common to all
    looks = _looks(_imported())
    descriptors.send(sock, encode(Prepared(forking.count_threads(), missing)))
    fork_on_request(sock, looks)


def fork_on_request(sock: socket.socket, looks: Looks) -> None:
    """Fork a worker whenever the supervisor asks; returns in these alone. ``looks``: what has to be as it was."""
    _blind()
    _clear_look_up_cache()
    while True:
        packet, fds = _receive(sock)
        if not packet:
            os._exit(0)
        asked = decode_asked(packet)
        said: FromTemplate
        if (changed := _changed(looks)) is not None:
            said = Stale(os.fsdecode(changed))
        else:
            try:
                pid = forking.fork_away()
            except OSError as error:
                said = ForkFailed(error.errno or 0)
            else:
                if not pid:
                    sock.close()
                    _become(asked, fds)
                    return
                said = Forked(pid)
        descriptors.close(fds)
        descriptors.send(sock, encode(said))
        if isinstance(said, Stale):
            os._exit(0)


def import_all(names: Iterable[str]) -> dict[str, str]:
    """Import what there is; what should not be there, and why."""
    missing = {}
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a module raises what it likes; each worker imports it by itself then
            missing[name] = f"{type(error).__name__}: {error}"
        if forking.count_threads() > 1:
            missing[name] = "a thread runs once it is imported, so that no worker can be forked"
            break
    return missing


def take_socket() -> socket.socket:
    """The supervisor's, which is our stdin; from here on that has nothing to read."""
    sock = socket.socket(fileno=descriptors.duplicate(0))
    null = os.open(os.devnull, os.O_RDONLY)
    descriptors.put_in_place(null, 0)
    return sock


def _blind() -> None:
    """Write nowhere from here on: what there was to be said of the start has been said."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):  # an app may have put anything there
            stream.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    descriptors.put_in_place(null, 2)


def _clear_look_up_cache() -> None:
    """Have the interpreter forget where it found attributes of types.

    It keeps the name of each, and they are all over the memory that is common to all: a worker that looks up another in
    its place lets go of it, and has a copy of its page.
    """
    for name in ("_clear_internal_caches", "_clear_type_cache"):  # since Python 3.13, and before
        if (clear := getattr(sys, name, None)) is not None:
            clear()
            return


def _receive(sock: socket.socket) -> tuple[bytes, Sequence[int]]:
    """Wait for the supervisor; an operator's SIGTERM ends us meanwhile, and would not end who is being forked."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        return descriptors.receive(sock, PACKET_LIMIT, DESCRIPTORS)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _become(asked: ForkAsked, fds: Sequence[int]) -> None:
    """Be what a program is that was started."""
    forking.hide_memory(hidden=False)
    os.setsid()
    for target, fd in zip((1, 2, 0), fds, strict=False):  # its stdin is ours, /dev/null, unless it is given one
        descriptors.put_in_place(fd, target)
    if asked.own_keyring:
        dropped_rights.join_new_keyring()
    os.environ.update(asked.environment)
    with suppress(OSError):  # the record knows who it is
        forking.show_as(asked.argv, os.environ)
    sys.orig_argv[:] = asked.argv
    sys.argv[1:] = asked.argv[-1:]
    gc_pause.count_frozen()


def _imported() -> Iterable[str]:
    """The files that modules are of, where others would be looked for, and what says which Python that is."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return {file for file in files if file} | set(sys.path) | {os.path.join(sys.prefix, "pyvenv.cfg")}


def _looks(paths: Iterable[str]) -> Looks:
    return {path: _look(path) for path in map(os.fsencode, paths)}


def _look(path: bytes) -> Look | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _changed(looks: Looks) -> bytes | None:
    """One that is not as it was."""
    return next((path for path, look in looks.items() if _look(path) != look), None)
