"""What can be known of a start before it: whether this machine, these options and this app will do."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Final

from supervisor.asgi.borrowed import Site, make_config
from supervisor.asgi.tracebacks import show_error
from supervisor.daemon import own_sockets, takeover
from supervisor.daemon.config import Settings
from supervisor.daemon.release import resolve
from supervisor.errors import Refused, UsageError
from supervisor.host.runtime import RuntimeDirectory
from supervisor.host.sockets import check_owner, open_listener
from supervisor.wire.places import CONTROL, runtime_directory
from supervisor.wire.record import Bequest

LONGEST_PATH: Final = 107
"""Bytes of a socket's path (unix(7))."""


def try_out(settings: Settings, bequest: Bequest) -> int:
    """Say whether this program could go on where another one is to leave off; the exit code.

    Raises:
        Refused: it could not.
    """
    resolve(settings)
    if runtime_path(settings) != bequest.path:
        raise Refused(f"its runtime directory would be {runtime_path(settings)}, not {bequest.path}", code="trial")
    known = {(listener.name, listener.bind) for listener in bequest.record.listeners}
    for bind in settings.binds:
        check_owner(bind)
        if (bind.name, str(bind.address)) not in known:  # it would be bound anew: now is the time to fail
            open_listener(bind, settings.backlog).close()
    runtime = RuntimeDirectory(bequest.path, bequest.lock, bequest.record.made_directory)
    own_sockets.try_out(runtime, settings.rights, bequest)
    takeover.check_user(bequest.record, settings.rights.worker_uid)
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


def check(settings: Settings) -> bool:
    """Look at everything that can be looked at without starting; whether the app was loaded, too.

    An app with an interpreter of its own is not: its packages are not ours.

    Raises:
        Refused: the service could not start.
    """
    check_platform()
    release = resolve(settings)
    for bind in settings.binds:
        check_owner(bind)
    if release.python != sys.executable:
        return False
    os.chdir(release.directory)
    sys.path.insert(0, release.app_dir)
    os.environ.update(release.environment)
    try:
        Site(make_config(release.app, release.options)).load()
    except SystemExit:
        raise Refused("the app could not be loaded", code="release") from None
    except BaseException as error:
        show_error(error)
        raise Refused(f"the app could not be loaded: {type(error).__name__}: {error}", code="release") from error
    return True


def clash() -> str:
    """A line about supervisord, which installs the same import name; empty when it is not here."""
    try:
        version = importlib.metadata.version("supervisor")
    except importlib.metadata.PackageNotFoundError:
        return ""
    return (
        f"supervisord ({version}) is installed in this environment and has the same import package, 'supervisor'; "
        "give stillup a virtual environment of its own"
    )


def check_platform() -> None:
    """See that this is a kernel that we can live with.

    Raises:
        Refused: it is not.
    """
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        raise Refused("stillup needs Linux 5.10 or newer", code="platform")
