"""What an operator can say: flags, STILLUP_* and UVICORN_* variables, and a file, in that order of precedence.

uvicorn's own options are taken from uvicorn's own definitions, so that they cannot drift apart.
"""

from __future__ import annotations

import copy
import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource
from uvicorn.main import main as uvicorn_command

from supervisor.core.model import Policy
from supervisor.core.scaling import MOST_WORKERS
from supervisor.daemon import rights
from supervisor.daemon.rights import Rights
from supervisor.errors import UsageError
from supervisor.wire.address import PORTS, Address, Bind, InheritedAddress, TcpAddress, parse_binds
from supervisor.wire.places import check_name, default_name
from supervisor.wire.size import parse_size

LEAST_HANG_TIMEOUT: Final = 3.0
"""Seconds; workers are heard about once a second, and one that is busy or looks for its supervisor somewhat later."""
FILES: Final = ("stillup.toml", "pyproject.toml")
_LEFT_OUT: Final = frozenset({"app", "version", "timeout_worker_healthcheck"})
"""uvicorn's parameters that have no meaning here; its health check is answered by a side thread."""
_SINGLE_BIND: Final = ("host", "port", "uds", "fd")
_SUPERVISOR: Final = frozenset(
    {*_SINGLE_BIND, "reload", "reload_dirs", "reload_includes", "reload_excludes", "reload_delay"}
    | {"workers", "env_file", "app_dir", "timeout_graceful_shutdown"}
)
"""uvicorn's parameters that the supervisor acts on; the rest goes to the workers as it is."""
_OWN_VARIABLES: Final = frozenset(
    {"STILLUP_GENERATION", "STILLUP_WORKER", "STILLUP_HANDOFF", "STILLUP_NONCE", "STILLUP_REEXEC", "STILLUP_TRIAL"}
)


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it, read and checked."""

    app: str
    name: str
    runtime_dir: str | None
    binds: tuple[Bind, ...]
    backlog: int
    workers: int
    policy: Policy
    directory: str
    """As given: perhaps a symlink, followed anew at each reload."""
    python: str = ""
    app_dir: str = ""
    env_file: str = ""
    health_path: str = ""
    health_host: str = "localhost"
    max_worker_age: float | None = None
    max_worker_rss: int | None = None
    orphan_timeout: float | None = None
    """Seconds; None for the default, which depends on how the supervisor was started."""
    rights: Rights = field(default_factory=Rights)
    log_level: str = "info"
    log_format: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    """uvicorn's worker options, by the names of ``uvicorn.Config``'s arguments."""
    reload: Mapping[str, Any] | None = None
    """uvicorn's ``reload_*`` options; None without ``--reload``."""


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


class _Size(click.ParamType):  # type: ignore[type-arg]  # not generic in the oldest click that we support
    """Bytes, or a number with K, M or G."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_size(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


def _own_parameters() -> list[click.Parameter]:
    """What stillup adds to uvicorn's command line."""
    seconds = _Seconds(min=0.1)
    return [
        click.Argument(["app"], metavar="APP"),
        click.Option(
            ["--bind", "binds"],
            multiple=True,
            metavar="ADDR",
            help="Where to listen; may be given several times. [NAME=]HOST:PORT, [::1]:PORT, unix:/path, "
            "unix:@abstract, fd:N or systemd:NAME, then ,mode=0660,user=U,group=G for paths. Port 0 lets the kernel "
            "choose. [default: 127.0.0.1:8000]",
        ),
        click.Option(["--name"], help="The service's name. [default: the working directory's]"),
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
        click.Option(
            ["--health-path"],
            help="A new worker must answer this path with 200 to 399 before it serves; asked in its own process.",
        ),
        click.Option(["--health-host"], default="localhost", show_default=True, help="The health probe's Host header."),
        click.Option(
            ["--boot-timeout"],
            type=seconds,
            default=60.0,
            show_default=True,
            help="Seconds that a new worker may take until it is ready; then its rollout is aborted.",
        ),
        click.Option(
            ["--drain-timeout"],
            type=seconds,
            help="Seconds that an old worker may take to finish what it holds. "
            "[default: --timeout-graceful-shutdown if given, else 30; 3 with --reload]",
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
            "another serves first. [default: never]",
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
        *rights.parameters(),
        click.Option(
            ["--log-format"],
            type=click.Choice(["auto", "text", "json"]),
            default="auto",
            show_default=True,
            help="How the supervisor's own log looks. auto: text; where stderr is the journal, with fields of its own.",
        ),
        click.Option(
            ["--config", "config_file"],
            type=click.Path(exists=True, dir_okay=False),
            is_eager=True,
            help="A stillup.toml, or a pyproject.toml with [tool.stillup]. [default: the one in this directory]",
        ),
    ]


def parameters() -> list[click.Parameter]:
    """The parameters of ``run`` and ``check``: our own, then uvicorn's."""
    own = _own_parameters()
    known = {parameter.name for parameter in own}
    borrowed = [copy.copy(p) for p in uvicorn_command.params if p.name not in known | _LEFT_OUT]
    for parameter in borrowed:
        if parameter.name in ("env_file", "log_config"):
            parameter.type = click.Path()  # relative to --directory, where they are looked for at each reload
    for parameter in (*own, *borrowed):
        parameter.envvar = [f"STILLUP_{_key(parameter).upper().replace('-', '_')}"]
        if parameter in borrowed or parameter.name == "app":
            parameter.envvar.append(f"UVICORN_{(parameter.name or '').upper()}")
    return [*own, *borrowed]


def load_file(context: click.Context, given: str | None) -> None:
    """Let a configuration file say what flags and variables do not.

    Raises:
        UsageError: the file is no TOML, or has a key that means nothing; the message says where.
    """
    table, path = _find_table(given)
    keys = {_key(parameter): parameter for parameter in context.command.params if parameter.name != "config_file"}
    values: dict[str, Any] = {}
    for key, value in table.items():
        parameter = keys.get(key.replace("_", "-"))
        if parameter is None or parameter.name is None:
            near = get_close_matches(key, keys, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise UsageError(f"{path}{_line_of(path, key)}: unknown key '{key}'{hint}")
        values[parameter.name] = value
    context.default_map = values


def unknown_variables(command: click.Command) -> list[str]:
    """STILLUP_* variables that nothing reads."""
    read = {name for parameter in command.params for name in (parameter.envvar or [])} | _OWN_VARIABLES
    return sorted(name for name in os.environ if name.startswith("STILLUP_") and name not in read)


def make_settings(context: click.Context, given: Mapping[str, Any]) -> Settings:
    """Check what was said as a whole.

    Raises:
        UsageError: it does not go together.
    """
    drains = (given["drain_timeout"], given["timeout_graceful_shutdown"], 3.0 if given["reload"] else 30.0)
    # Absolute, but its symlinks as they are: they are followed anew at each reload.
    directory = _absolute(given["directory"])
    workers = given["workers"] if given["workers"] is not None else _web_concurrency()
    if workers < 1:
        raise UsageError("a service needs at least 1 worker (--workers)")
    if workers > MOST_WORKERS:
        raise UsageError(f"{workers} workers are too many: {MOST_WORKERS} are the most (--workers)")
    path = given["health_path"] or ""
    if path and not path.startswith("/"):
        raise UsageError(f"'{path}' is no path: --health-path begins with /")
    name = given["name"]
    return Settings(
        app=given["app"],
        name=check_name(name) if name else default_name(directory),
        runtime_dir=_absolute(given["runtime_dir"]) if given["runtime_dir"] else None,
        binds=_binds(context, given),
        backlog=given["backlog"],
        workers=workers,
        policy=Policy(
            boot_timeout=given["boot_timeout"],
            drain_timeout=float(next(drain for drain in drains if drain is not None)),
            hang_timeout=_unless_reload(given, "hang_timeout", 60.0) or None,
            probation=_unless_reload(given, "probation", 30.0),
            keep_trying=given["reload"],
        ),
        directory=directory,
        python=given["python"] or "",
        app_dir=given["app_dir"],
        env_file=given["env_file"] or "",
        health_path=path,
        health_host=given["health_host"],
        max_worker_age=given["max_worker_age"],
        max_worker_rss=given["max_worker_rss"],
        orphan_timeout=given["orphan_timeout"],
        rights=rights.make_rights(given),
        log_level=given["log_level"] or "info",
        log_format=given["log_format"],
        options=_worker_options(given),
        reload=_reload_options(given, directory) if given["reload"] else None,
    )


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise UsageError(f"the working directory is gone, and '{path}' is relative to it; cd to where it is") from None


def _unless_reload(given: Mapping[str, Any], name: str, default: float) -> float:
    """What was given, or else the default; 0 with --reload.

    Who edits under --reload stops at breakpoints, and saves what crashes.
    """
    if given[name] is not None:
        return float(given[name])
    return 0.0 if given["reload"] else default


def _binds(context: click.Context, given: Mapping[str, Any]) -> tuple[Bind, ...]:
    """Where to listen, by whoever has the last word: flags, then the environment, then the file."""
    ranks = {name: _rank(context, name) for name in ("binds", *_SINGLE_BIND)}
    last = {name for name, rank in ranks.items() if rank and rank == max(ranks.values())}
    if len(last) > 1 and last != {"host", "port"}:
        words = ", ".join(f"--{'bind' if name == 'binds' else name}" for name in sorted(last))
        raise UsageError(f"{words} each say where to listen; use --bind alone, several times if need be")
    if "binds" in last:
        return parse_binds(list(given["binds"]))
    if given["port"] not in PORTS:  # getaddrinfo(3) would take it modulo 65,536
        raise UsageError(f"{given['port']} is no port: they are {PORTS[0]} to {PORTS[-1]} (--port)")
    address: Address = TcpAddress(given["host"], given["port"])
    if "uds" in last:
        return parse_binds([f"unix:{given['uds']}"])
    if "fd" in last:
        address = InheritedAddress(given["fd"])
    return (Bind(str(address), address),)


def _rank(context: click.Context, name: str) -> int:
    order = (ParameterSource.DEFAULT_MAP, ParameterSource.ENVIRONMENT, ParameterSource.COMMANDLINE)
    source = context.get_parameter_source(name)
    return order.index(source) + 1 if source in order else 0


def _worker_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Uvicorn's own command does the same with its parameters before it gives them to Config."""
    names = {p.name for p in uvicorn_command.params if p.name is not None} - _LEFT_OUT - _SUPERVISOR
    options = {name: given[name] for name in names if name in given}
    if options["log_config"] is None:
        del options["log_config"]
    options["headers"] = [header.split(":", 1) for header in options["headers"]]
    if options["use_colors"] is None:
        # While it boots, a worker's stdout is a pipe; where it goes in the end is ours.
        options["use_colors"] = os.isatty(1)
    return options


def _reload_options(given: Mapping[str, Any], directory: str) -> dict[str, Any]:
    return {
        "reload_dirs": list(given["reload_dirs"]) or [directory],
        "reload_includes": list(given["reload_includes"]) or None,
        "reload_excludes": list(given["reload_excludes"]) or None,
        "reload_delay": given["reload_delay"],
    }


def _web_concurrency() -> int:
    text = os.environ.get("WEB_CONCURRENCY", "1")
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"WEB_CONCURRENCY is '{text}', not a number of workers") from None


def _find_table(given: str | None) -> tuple[Mapping[str, Any], str]:
    candidates: Sequence[str] = (given,) if given else FILES
    for path in candidates:
        try:
            text = Path(path).read_text(encoding="utf-8")
            table = tomllib.loads(text)
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{path}: {error}") from error
        if Path(path).name == "pyproject.toml":
            table = table.get("tool", {}).get("stillup", {})
            if not table and not given:
                continue
            if not isinstance(table, dict):
                raise UsageError(f"{path}: [tool.stillup] is a table of settings, not '{table}'")
        return table, path
    return {}, ""


def _line_of(path: str, key: str) -> str:
    pattern = re.compile(rf"^\s*[\"']?{re.escape(key)}[\"']?\s*=")
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if pattern.match(line):
            return f", line {number}"
    return ""


def _key(parameter: click.Parameter) -> str:
    """A parameter's key in a file: its flag without the dashes."""
    long = next((option for option in parameter.opts if option.startswith("--")), parameter.name or "")
    return long.removeprefix("--")
