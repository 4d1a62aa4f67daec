"""What a worker is started as, and what it is told first: each one value, made of the order to start it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Final

from stillup import __version__
from stillup.core.commands import Spawn
from stillup.core.values import replace
from stillup.daemon.workers.program import Program
from stillup.host.accounts import Account
from stillup.wire import handoff_messages
from stillup.wire.handoff_messages import Welcome
from stillup.wire.template_messages import PRELOADER, Load

_ALWAYS: Final = ("uvicorn.lifespan.on",)
_IMPORTS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "loop": {"auto": ("uvicorn.loops.auto", "uvicorn.loops.uvloop"), "uvloop": ("uvicorn.loops.uvloop",)},
    "http": {
        "auto": ("uvicorn.protocols.http.auto",),
        "h11": ("uvicorn.protocols.http.h11_impl",),
        "httptools": ("uvicorn.protocols.http.httptools_impl",),
    },
    "ws": {
        "auto": ("uvicorn.protocols.websockets.auto",),
        "websockets-sansio": ("uvicorn.protocols.websockets.websockets_sansio_impl",),
        "wsproto": ("uvicorn.protocols.websockets.wsproto_impl",),
    },
}
"""By option and value, what is imported when uvicorn is configured."""
SHORTEST_BOOT = 0.1
"""Seconds that a worker has at least from its welcome on."""


def worker_program(command: Spawn, nonce: str, *, title: str, account: Account | None, handoff_path: str) -> Program:
    """A worker's process.

    Args:
        command: the order to start it.
        nonce: what it says to be let in.
        title: the service's name; with the worker's it stands last in its command line.
        account: whose it is; None for our own user's.
        handoff_path: of ``handoff.sock``.
    """
    release = command.release
    name = f"{title}:{command.generation}.{command.slot}"
    return Program(
        argv=(release.python, "-P", "-m", release.settings.module, name),
        environment={**release.environment, "STILLUP_HANDOFF": handoff_path},
        own_environment={
            "STILLUP_GENERATION": str(command.generation),
            "STILLUP_WORKER": str(command.slot),
            "STILLUP_NONCE": nonce,
        },
        account=account,
        has_terminal=release.settings.has_terminal,
        template=release.settings.template,
        warm=release.settings.warm,
        imports=imported_by(release.options),
        preload=release.settings.preload and not (release.settings.reload_dirs or release.settings.has_terminal),
    )


def preloader_program(worker: Program, generation: int) -> Program:
    """What the workers of a generation are forked from, by what one of them is started as."""
    name = f"{worker.argv[-1].rpartition(':')[0]}:{generation}.preload"
    own = {"STILLUP_GENERATION": str(generation), PRELOADER: "1"}
    return replace(worker, argv=(*worker.argv[:-1], name), own_environment=own, preload=False)


def load(command: Spawn, boot_left: float) -> Load:
    """What a preloader is told, of the first worker of its generation; ``boot_left`` as in ``welcome``."""
    return Load(replace(welcome(command, boot_left), worker=0))


def imported_by(options: Mapping[str, Any]) -> tuple[str, ...]:
    """What uvicorn imports in every worker that is configured so."""
    chosen = (modules.get(str(options.get(option, "auto")), ()) for option, modules in _IMPORTS.items())
    return tuple(itertools.chain(_ALWAYS, *chosen))


def welcome(command: Spawn, boot_left: float) -> Welcome:
    """What a worker is told about itself; ``boot_left``: seconds until READY is due."""
    release = command.release
    return Welcome(
        protocol=handoff_messages.PROTOCOL,
        worker=command.slot,
        generation=command.generation,
        app=release.app,
        directory=release.directory,
        app_dir=release.app_dir,
        options=dict(release.options),
        drain_timeout=command.drain_timeout,
        boot_timeout=max(boot_left, SHORTEST_BOOT),
        settings=replace(release.settings, hears_probe=True),
    )


def why_no_worker(command: Spawn, output: str) -> str:
    """Why a release's interpreter could not run a worker at all, by its last output; empty if it could."""
    return why_no_module(command.release.python, command.release.settings.module, output)


def why_no_module(python: str, module: str, output: str) -> str:
    """Why an interpreter could not run a module of ours at all, by its last output; empty if it could."""
    if "Unknown option: -P" in output:
        return f"{python} is older than Python 3.11, which stillup needs"
    last = output.rstrip().rpartition("\n")[2]
    if "No module named" in last and module in last:
        return f"{python} has no {module}: install stillup {__version__} into its environment"
    return ""
