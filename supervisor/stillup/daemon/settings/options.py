"""The options: stillup's own, and uvicorn's as uvicorn defines them, so that they cannot drift apart.

Each can be given as a flag, as a key of the file and as a variable, by the same name.
"""

from __future__ import annotations

import copy
import math
from typing import Any, Final

import click
import msgspec
from uvicorn.main import main as uvicorn_command

from stillup.core.policy import MOST_WORKERS
from stillup.daemon.settings import health_options, hook_options, log_settings, rights, strategy_options
from stillup.daemon.settings.hook_options import FileTable
from stillup.errors import UsageError
from stillup.wire.byte_size import parse_percentage, parse_size

LEAST_HANG_TIMEOUT: Final = 3.0
"""Seconds; workers are heard once a second then, and one that is busy or looks for its supervisor somewhat later."""
MOST_DRAINING: Final = 100
"""Old generations at once: each has all its workers."""
NOT_TAKEN: Final = frozenset({"app", "version", "timeout_worker_healthcheck"})
"""uvicorn's parameters that have no meaning here; its health check is answered by a side thread."""
SINGLE_BIND: Final = ("host", "port", "uds", "fd")
OF_SUPERVISOR: Final = frozenset(
    {*SINGLE_BIND, "reload", "reload_dirs", "reload_includes", "reload_excludes", "reload_delay"}
    | {"workers", "env_file", "app_dir", "timeout_graceful_shutdown"}
)
"""uvicorn's parameters that the supervisor acts on; the rest goes to the workers as it is."""


def parameters() -> list[click.Parameter]:
    """The parameters of ``run`` and ``check``: our own, then uvicorn's."""
    own = _own_parameters()
    known = {parameter.name for parameter in own}
    uvicorns = [copy.copy(p) for p in uvicorn_command.params if p.name not in known | NOT_TAKEN]
    for parameter in uvicorns:
        if parameter.name in ("env_file", "log_config"):
            parameter.type = click.Path()  # relative to --directory, where they are looked for at each reload
        if parameter.name == "workers":
            parameter.opts = [*parameter.opts, "-w"]
    for parameter in (*own, *uvicorns):
        if isinstance(parameter, FileTable):
            continue
        parameter.envvar = [f"STILLUP_{key_of(parameter).upper().replace('-', '_')}"]
        if parameter in uvicorns or parameter.name == "app":
            parameter.envvar.append(f"UVICORN_{(parameter.name or '').upper()}")
    return [*own, *uvicorns]


def key_of(parameter: click.Parameter) -> str:
    """A parameter's key in a file: its flag without the dashes."""
    long = next((option for option in parameter.opts if option.startswith("--")), parameter.name or "")
    return long.removeprefix("--")


class _Modules(click.ParamType):  # type: ignore[type-arg]  # not generic in the oldest click that we support
    """Names of modules, separated by commas."""

    name = "modules"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in value.split(","))
        for name in names:
            if not all(part.isidentifier() for part in name.split(".")):
                self.fail(f"'{name}' is no module's name", param, ctx)
        return names


class _Seconds(click.FloatRange):
    """Seconds; ``inf`` and ``nan`` are floats to Python, but no JSON that a worker could read."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is no number of seconds.", param, ctx)
        return seconds


class _SecondsOrNever(_Seconds):
    """Seconds, or 0 for never."""

    def __init__(self, least: float) -> None:
        super().__init__(min=0)
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = super().convert(value, param, ctx)
        if 0 < seconds < self._least:
            self.fail(f"{value} is too short: {self._least:g} is the least, or 0 for never.", param, ctx)
        return seconds


class MemoryShare(msgspec.Struct, frozen=True):
    """A part of the memory that there is, for all workers together."""

    percent: int


class _Size(click.ParamType):  # type: ignore[type-arg]  # not generic in the oldest click that we support
    """Bytes, a number with K, M or G, or a percentage of what there is."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | MemoryShare:
        if isinstance(value, MemoryShare):
            return value
        try:
            percent = parse_percentage(str(value))
            return MemoryShare(percent) if percent is not None else parse_size(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


def _own_parameters() -> list[click.Parameter]:
    """What stillup adds to uvicorn's command line."""
    seconds = _Seconds(min=0.1)
    return [
        click.Argument(["app"], metavar="APP"),
        click.Option(
            ["--bind", "-b", "binds"],
            multiple=True,
            metavar="ADDR",
            help="Where to listen; may be given several times. [NAME=]HOST:PORT, [::1]:PORT, unix:/path, "
            "unix:@abstract, fd:N or systemd:NAME, then ,mode=0660,user=U,group=G for paths. Port 0 lets the kernel "
            "choose. [default: 127.0.0.1:8000]",
        ),
        click.Option(["--name", "-n"], help="The service's name. [default: the working directory's]"),
        click.Option(
            ["--runtime-dir"],
            type=click.Path(),
            help="Where the control socket is. [default: $RUNTIME_DIRECTORY, /run/stillup/NAME for root, "
            "else $XDG_RUNTIME_DIR/stillup/NAME]",
        ),
        click.Option(
            ["--directory"],
            type=click.Path(),
            default=".",
            help="The workers' working directory. A symlink is followed anew at each reload. [default: this one]",
        ),
        click.Option(
            ["--python"],
            type=click.Path(),
            help="The workers' interpreter, relative to --directory. It needs stillup too. [default: this one]",
        ),
        *health_options.parameters(),
        *hook_options.parameters(seconds),
        click.Option(
            ["--boot-timeout"],
            type=seconds,
            metavar="SECONDS",
            default=60.0,
            show_default=True,
            help="Seconds that a new worker may take until it is ready; then its rollout is aborted.",
        ),
        click.Option(
            ["--boot-concurrency"],
            type=click.IntRange(1, MOST_WORKERS),
            metavar="N",
            help="Workers that boot at once; others are queued, those of a rollback and of what serves the least. More "
            "where a boot waits rather than computes. [default: the processors that the supervisor may use]",
        ),
        click.Option(
            ["--template/--no-template"],
            default=True,
            help="Fork workers from a process that has imported what all of them need, in a fifth of the time; or "
            "start each as a program of its own. [default: --template]",
        ),
        click.Option(
            ["--warm"],
            type=_Modules(),
            metavar="MODULES",
            default=(),
            help="What that process imports, too: modules of others that the app uses and that take long, separated by "
            "commas (fastapi,sqlalchemy). None of the app's own: those are to be imported anew at a reload.",
        ),
        click.Option(
            ["--preload/--no-preload"],
            default=False,
            help="Import the app once a generation, in a process of its own that the generation's workers are forked "
            "from: less memory, and a crashed worker is back at once. An app that starts threads or connects when it "
            "is imported is not, which the log says. Not with --reload. [default: --no-preload]",
        ),
        click.Option(
            ["--drain-timeout"],
            type=seconds,
            metavar="SECONDS",
            help="Seconds that requests have in an old worker, beside a new one. "
            "[default: --timeout-graceful-shutdown if given, else 30; 3 with --reload]",
        ),
        click.Option(
            ["--drain-timeout-stream"],
            type=seconds,
            metavar="SECONDS",
            help="Seconds that streaming answers have there: those whose head is out while their body goes on. "
            "[default: 600; as --drain-timeout with --reload, or with --strategy rolling --max-surge 0]",
        ),
        click.Option(
            ["--drain-timeout-websocket"],
            type=_Seconds(min=0),
            metavar="SECONDS",
            default=0.0,
            show_default=True,
            help="Seconds from when an app is told that its worker drains until its WebSockets there are closed "
            "(1012), spread out.",
        ),
        click.Option(
            ["--stop-timeout"],
            type=seconds,
            metavar="SECONDS",
            help="Seconds from a stop until everything has ended, the app's lifespan shutdown, too: for that what is "
            "under way is cut 5 s earlier, or a quarter of the time. [default: "
            "--timeout-graceful-shutdown if given, else as --drain-timeout]",
        ),
        click.Option(
            ["--stop-delay"],
            type=_Seconds(min=0),
            metavar="SECONDS",
            default=0.0,
            show_default=True,
            help="The first part of a stop: unready as after 'cordon', and still serving, until balancers have heard "
            "of it; the time since a cordon counts. A second TERM ends it, Ctrl-C skips it. With it nothing is kept "
            "over a restart by systemd.",
        ),
        *strategy_options.parameters(),
        click.Option(
            ["--max-draining"],
            type=click.IntRange(1, MOST_DRAINING),
            default=2,
            show_default=True,
            help="Old generations that may be there at once. One more reload waits for the oldest, and has server-sent "
            "events there ended.",
        ),
        click.Option(
            ["--orphan-timeout"],
            type=_Seconds(min=0),
            metavar="SECONDS",
            help="Seconds that workers serve on when the supervisor has died, until another one takes them over; then "
            "they finish what they hold and leave. [default: 300; 0 when started from a terminal]",
        ),
        click.Option(
            ["--max-worker-age"],
            type=seconds,
            metavar="SECONDS",
            help="Replace a worker that is that old, and up to 10 % older; another serves first. [default: never]",
        ),
        click.Option(
            ["--max-worker-rss"],
            type=_Size(),
            metavar="SIZE",
            help="Replace a worker that holds that much memory (bytes, or 512M, 1.5G; without its children); "
            "another serves first. 80%: of the machine's memory, or the container's limit, by --workers. "
            "[default: never]",
        ),
        click.Option(
            ["--hang-timeout"],
            type=_SecondsOrNever(LEAST_HANG_TIMEOUT),
            metavar="SECONDS",
            help="Replace a worker whose event loop has been blocked for that long: the log shows where it hangs, "
            "another serves first, then it is killed. 0: never. [default: 60; 0 with --reload]",
        ),
        click.Option(
            ["--probation"],
            type=_Seconds(min=0),
            metavar="SECONDS",
            help="If as many workers die as there are, and at least 2, within that time after a new release began to "
            "serve, the release before it is put back into service. 0: never. [default: 30; 0 with --reload]",
        ),
        click.Option(
            ["--leader-timeout"],
            type=seconds,
            metavar="SECONDS",
            default=10.0,
            show_default=True,
            help="Seconds that a worker which leads has to let go of that once it is told to leave; then it is killed, "
            "with what it still serves, so that another can lead.",
        ),
        click.Option(
            ["--reload-on", "reload_on"],
            multiple=True,
            metavar="PATH",
            help="Reload when this file, or one in this directory, has changed: what the app reads at its start, such "
            "as a ConfigMap of Kubernetes. May be given several times.",
        ),
        click.Option(
            ["--cordon-status"],
            type=click.Choice(["503", "404"]),
            default="503",
            show_default=True,
            help="What /readyz answers with while the service is cordoned; 404 is for HAProxy's disable-on-404.",
        ),
        *rights.parameters(),
        *log_settings.parameters(),
        click.Option(
            ["--config", "-c", "config_file"],
            type=click.Path(exists=True, dir_okay=False),
            is_eager=True,
            help="A stillup.toml, or a pyproject.toml with [tool.stillup]. [default: the one in this directory]",
        ),
    ]
