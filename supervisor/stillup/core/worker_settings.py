"""What an operator sets for every worker: one value, from the configuration to the worker.

The configuration builds it of the options with the same names, ``Release.settings`` keeps it, ``Welcome.settings``
carries it. A new setting is a field with a default here, its option in ``daemon.settings.options``, and its use. Whose
word about a client is taken comes of the binds.
"""

from __future__ import annotations

import msgspec


class WorkerSettings(msgspec.Struct, frozen=True):
    """The settings of the workers of one release."""

    health_path: str = ""
    """What the health probe asks for; without it there is no probe."""
    health_host: str = "localhost"
    """The health probe's Host header."""
    max_worker_age: float | None = None
    """Seconds after which a worker asks to be replaced; None: never."""
    max_worker_rss: int | None = None
    """Bytes in memory from which on a worker asks to be replaced; None: never."""
    orphan_timeout: float = 0.0
    """Seconds that a worker serves on without a supervisor, before it drains."""
    drain_timeout_stream: float | None = None
    """Seconds that streaming answers have in a drain that this worker begins by itself; None: as requests have."""
    drain_timeout_websocket: float = 0.0
    """The same, of WebSockets: from when the app was told to their close."""
    stop_timeout: float | None = None
    """Seconds that all of them have when nobody comes after; None: as requests have."""
    proxy_uids: tuple[int, ...] = ()
    """Users who are believed with X-Forwarded-* on any Unix socket: root, and the supervisor's own."""
    proxy_gids: dict[str, int] = {}
    """By listener, the group that its bind names, and whose members are believed there, too."""
    health_headers: tuple[tuple[str, str], ...] = ()
    """Further headers of the health probe; one may hold a token."""
    health_status: tuple[tuple[int, int], ...] = ((200, 299),)
    """The answers that are healthy: ranges of statuses, ends included."""
    hears_probe: bool = False
    """Whether the supervisor understands ``ProbeAnswer``: one of an earlier version does not."""
    log_form: str = ""
    """The form of what a worker logs (``wire.log_lines``); empty: uvicorn's own, or that of ``--log-config``."""
    log_capture: bool = False
    """Whether what the app prints is logged, too; else it is written as it is."""
    reload_dirs: tuple[str, ...] = ()
    """The directories whose sources are watched (``--reload``), absolute; none without hot reload."""
    has_terminal: bool = False
    """Whether its stdin is the supervisor's terminal, for a debugger."""
    template: bool = True
    """Whether it is forked from a process that has imported what all workers need; else each is started by itself."""
    warm: tuple[str, ...] = ()
    """Further modules that this process imports."""
    preload: bool = False
    """Whether the workers of a generation are forked from a process that has imported the app, where that can be."""
    report_interval: float = 1.0
    """Seconds between two reports of a worker with nothing new to tell, about; with news it reports within a second."""

    @property
    def module(self) -> str:
        """What a worker's process runs (``python -m``). Another kind of worker is a setting that this looks at."""
        return "stillup.worker"


def probe_path(settings: WorkerSettings) -> str:
    """The health probe's path as others than the app may see it: without its query, which may hold a token."""
    return settings.health_path.partition("?")[0]
