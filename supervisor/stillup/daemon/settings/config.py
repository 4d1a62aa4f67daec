"""The configuration: flags, STILLUP_* and UVICORN_* variables and a file, in that order of precedence, as one value."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final

import click
import msgspec
from click.core import ParameterSource
from uvicorn.main import main as uvicorn_command

from stillup.core import hang
from stillup.core.policy import MOST_WORKERS, Policy
from stillup.core.strategy import StrategyKind
from stillup.core.values import replace
from stillup.core.worker_settings import WorkerSettings
from stillup.daemon.settings import bind_changes, development, file_values, log_settings, rights, strategy_options
from stillup.daemon.settings.app_name import check_app
from stillup.daemon.settings.development import LONGEST_BOOT, OF_DEVELOPMENT
from stillup.daemon.settings.log_settings import OF_LOG, LogSettings
from stillup.daemon.settings.options import NOT_TAKEN, OF_SUPERVISOR, SINGLE_BIND, MemoryShare, key_of
from stillup.daemon.settings.rights import Rights
from stillup.errors import UsageError
from stillup.host import config_file, memory_limit, processors, terminal
from stillup.host.sockets import group_of
from stillup.wire.address import PORTS, Address, Bind, InheritedAddress, TcpAddress, is_open, parse_binds
from stillup.wire.config_text import ConfigText
from stillup.wire.runtime_paths import check_name, default_name

NO_OPTIONS: Final = frozenset({"proxy_uids", "proxy_gids", "hears_probe", "report_interval"})
"""Settings of workers that come of who we are, of the binds, and of other options."""
ORPHAN_TIMEOUT: Final = 300.0
"""Seconds that workers serve on without a supervisor, unless it was started from a terminal."""
_FILE: Final = "stillup.config"
"""The key of click's ``Context.meta`` under which the file is that was read."""
GUNICORN_FILE: Final = "gunicorn.conf.py"
"""What gunicorn reads by itself."""
_OWN_VARIABLES: Final = frozenset(
    {
        "STILLUP_GENERATION",
        "STILLUP_WORKER",
        "STILLUP_HANDOFF",
        "STILLUP_NONCE",
        "STILLUP_REEXEC",
        "STILLUP_REMOTE",
        "STILLUP_TEMPLATE_IMPORTS",
        "STILLUP_TRIAL",
    }
)


class Settings(msgspec.Struct, frozen=True):
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
    worker: WorkerSettings = msgspec.field(default_factory=WorkerSettings)
    rights: Rights = msgspec.field(default_factory=Rights)
    log: LogSettings = msgspec.field(default_factory=LogSettings)
    reload_on: tuple[str, ...] = ()
    """Files and directories whose change is a reload; absolute."""
    cordon_status: int = 503
    """What ``/readyz`` answers with while the service is cordoned."""
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """uvicorn's worker options, by the names of ``uvicorn.Config``'s arguments."""
    reload: Mapping[str, Any] | None = None
    """uvicorn's ``reload_*`` options; None without ``--reload``."""

    @property
    def doubtful_binds(self) -> tuple[Bind, ...]:
        """Those that anybody can connect to, where nobody has said whose X-Forwarded-* is to be believed."""
        said = self.options.get("forwarded_allow_ips") or os.environ.get("FORWARDED_ALLOW_IPS")
        if said or not self.options.get("proxy_headers"):
            return ()
        return tuple(bind for bind in self.binds if is_open(bind.address))


def file_of(context: click.Context) -> ConfigText:
    """The file that was read."""
    file: ConfigText = context.meta[_FILE]
    return file


def load_file(context: click.Context, given: str | None) -> None:
    """Let a configuration file say what flags and variables do not: the one that is given, or else ``context.obj``.

    Raises:
        UsageError: the file is no TOML, or has a key or a value that means nothing; the message says where.
    """
    file = context.obj if isinstance(context.obj, ConfigText) else config_file.find(given)
    context.default_map = file_values.read(file, context.command.params)
    context.meta[_FILE] = file


def source_of(context: click.Context, parameter: click.Parameter) -> str:
    """Where an option's value is from, for a message: a file and its line, or a variable; empty for a flag."""
    source = context.get_parameter_source(parameter.name or "")
    if source is ParameterSource.DEFAULT_MAP:
        file: ConfigText = context.meta[_FILE]
        return file.place(key_of(parameter))
    if source is ParameterSource.ENVIRONMENT:
        return next((name for name in parameter.envvar or [] if os.environ.get(name)), "")
    return ""


def placed(context: click.Context, message: str) -> str:
    """A refusal with the place of each option that it speaks of, where that is no flag."""
    said = []
    for parameter in context.command.params:
        key = key_of(parameter)
        begins = {"binds": "bind '", "app": f"'{context.params.get('app')}'"}.get(parameter.name or "")
        if re.search(rf"--{key}(?![\w-])", message) or (begins and message.startswith(begins)):
            said.append(source_of(context, parameter))
    places = ", ".join(dict.fromkeys(place for place in said if place))
    return f"{message} ({places})" if places else message


def unread_of_gunicorn(context: click.Context) -> list[str]:
    """What gunicorn would have read here, and we do not: each with the way out."""
    found = []
    if os.environ.get("GUNICORN_CMD_ARGS"):
        found.append("GUNICORN_CMD_ARGS is not read; 'stillup migrate' writes a stillup.toml with what it says")
    if not context.meta[_FILE].path and os.path.exists(GUNICORN_FILE):
        found.append(f"{GUNICORN_FILE} is not read; 'stillup migrate {GUNICORN_FILE}' writes a stillup.toml of it")
    return found


def unknown_variables(command: click.Command) -> list[str]:
    """STILLUP_* variables that nothing reads."""
    read = {name for parameter in command.params for name in (parameter.envvar or [])} | _OWN_VARIABLES
    return sorted(name for name in os.environ if name.startswith("STILLUP_") and name not in read)


def doubt(context: click.Context, settings: Settings) -> str:
    """Why the file that was read should be elsewhere; empty if it need not be, or there is none."""
    path, account = context.meta[_FILE].path, settings.rights.worker
    level = config_file.written_by(path, account) if path and account is not None else ""
    if not level or account is None:
        return ""
    return (
        f"{path} decides what root does, and uid {account.uid}, whose the workers are, can write to {level}: "
        "have it where only root can (--config)"
    )


def make_settings(context: click.Context, given: Mapping[str, Any], kept: Settings | None = None) -> Settings:
    """Check what was said as a whole.

    Args:
        context: in which it was said.
        given: the values by the names of the parameters.
        kept: what runs, where the configuration is read again: the part of it that a reload does not change.

    Raises:
        UsageError: it does not go together.
    """
    # Absolute, but its symlinks as they are: they are followed anew at each reload.
    directory = _absolute(given["directory"])
    workers = given["workers"] if given["workers"] is not None else _web_concurrency()
    if workers < 1:
        raise UsageError("a service needs at least 1 worker (--workers)")
    if workers > MOST_WORKERS:
        raise UsageError(f"{workers} workers are too many: {MOST_WORKERS} are the most (--workers)")
    name = given["name"]
    binds = binds_of(context, given)
    if kept is not None:
        binds = bind_changes.merge(kept.binds, binds, kept.worker.proxy_gids).binds
    log = log_settings.make_log_settings(given) if kept is None else kept.log
    return Settings(
        app=check_app(given["app"], os.path.join(directory, given["app_dir"])),
        name=kept.name if kept is not None else check_name(name) if name else default_name(directory),
        runtime_dir=_absolute(given["runtime_dir"]) if given["runtime_dir"] else None,
        binds=binds,
        backlog=given["backlog"],
        workers=workers,
        policy=_policy(context, given, workers),
        directory=directory,
        python=given["python"] or "",
        app_dir=given["app_dir"],
        env_file=given["env_file"] or "",
        worker=_worker_settings({**given, **_limits(given, workers)}, binds, log, directory, kept),
        rights=rights.make_rights(given) if kept is None else kept.rights,
        reload_on=tuple(map(_absolute, given["reload_on"])),
        cordon_status=int(given["cordon_status"]),
        log=log,
        options=_worker_options(given, log),
        reload=development.reload_options(given, directory) if given["reload"] else None,
    )


def _policy(context: click.Context, given: Mapping[str, Any], workers: int) -> Policy:
    """The options that have the names of its parts; the default of some depends on another option."""
    values = {name: given[name] for name in Policy.__struct_fields__ if name in given}
    values.update(_times(given))
    is_bounded = any(_rank(context, name) for name in ("max_surge", "max_unavailable"))
    values["strategy"] = strategy_options.make_strategy(given, workers, is_bounded=is_bounded)
    values["allow_strategy"] = tuple(map(StrategyKind, given["allow_strategy"]))
    values["boot_concurrency"] = given["boot_concurrency"] or min(processors.usable(), MOST_WORKERS)
    values["hang_timeout"] = _hang_timeout(given)
    values["probation"] = _unless_reload(given, "probation", 30.0)
    if development.is_interactive(given) and not _rank(context, "boot_timeout"):
        values["boot_timeout"] = LONGEST_BOOT
    return Policy(**values, keep_trying=given["reload"])


def _times(given: Mapping[str, Any]) -> dict[str, float]:
    """How long each class may take in a drain, and all of them at a stop: uvicorn's own option sets both."""
    reload, graceful = given["reload"], given["timeout_graceful_shutdown"]
    drain = _first(given["drain_timeout"], graceful, 3.0 if reload else 30.0)
    is_short = reload or strategy_options.never_surges(given)
    return {
        "drain_timeout": drain,
        "drain_timeout_stream": _first(given["drain_timeout_stream"], drain if is_short else max(drain, 600.0)),
        "drain_timeout_websocket": float(given["drain_timeout_websocket"]),
        "stop_timeout": _first(given["stop_timeout"], graceful, drain),
    }


def _first(*seconds: float | None) -> float:
    return float(next(one for one in seconds if one is not None))


def _limits(given: Mapping[str, Any], workers: int) -> dict[str, int]:
    """What a worker may hold where all together may hold a share of what there is."""
    share = given["max_worker_rss"]
    if not isinstance(share, MemoryShare):
        return {}
    return {"max_worker_rss": memory_limit.usable() * share.percent // 100 // workers}


def _worker_settings(
    given: Mapping[str, Any], binds: tuple[Bind, ...], log: LogSettings, directory: str, kept: Settings | None
) -> WorkerSettings:
    """The options that have the settings' names; None is an option that was not given."""
    groups = {bind.name: gid for bind in binds if (gid := group_of(bind)) is not None}
    # A connection outlasts the listener that it came by.
    before = kept.worker.proxy_gids if kept is not None else {}
    not_options = NO_OPTIONS | OF_LOG | OF_DEVELOPMENT
    values = {name: given[name] for name in WorkerSettings.__struct_fields__ if name not in not_options}
    values.update({name: seconds for name, seconds in _times(given).items() if name in values})
    settings = WorkerSettings(
        **{name: value for name, value in values.items() if value is not None},
        proxy_uids=tuple(sorted({0, os.geteuid()})),
        proxy_gids={**before, **groups},
        report_interval=hang.report_interval(_hang_timeout(given)),
        **log_settings.of_workers(log, given),
        **development.of_workers(given, directory),
    )
    if settings.health_path and not settings.health_path.startswith("/"):
        raise UsageError(f"'{settings.health_path}' is no path: --health-path begins with /")
    if values["orphan_timeout"] is None and not terminal.is_ours():
        return replace(settings, orphan_timeout=ORPHAN_TIMEOUT)
    return settings


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise UsageError(f"the working directory is gone, and '{path}' is relative to it; cd to where it is") from None


def _hang_timeout(given: Mapping[str, Any]) -> float | None:
    return _unless_reload(given, "hang_timeout", 60.0) or None


def _unless_reload(given: Mapping[str, Any], name: str, default: float) -> float:
    """What was given, or else the default; 0 with --reload.

    Who edits under --reload stops at breakpoints, and saves what crashes.
    """
    if given[name] is not None:
        return float(given[name])
    return 0.0 if given["reload"] else default


def binds_of(context: click.Context, given: Mapping[str, Any]) -> tuple[Bind, ...]:
    """Where to listen, by the first of these that says it: flags, the environment, the file, PORT of a platform."""
    ranks = {name: _rank(context, name) for name in ("binds", *SINGLE_BIND)}
    if not any(ranks.values()) and (port := os.environ.get("PORT")):
        return parse_binds([f"0.0.0.0:{port}"])
    last = {name for name, rank in ranks.items() if rank and rank == max(ranks.values())}
    if len(last) > 1 and last != {"host", "port"}:
        words = ", ".join(f"--{'bind' if name == 'binds' else name}" for name in sorted(last))
        raise UsageError(f"{words} each say where to listen; use --bind alone, several times if need be")
    if "binds" in last:
        return parse_binds(list(given["binds"]))
    if given["port"] not in PORTS:  # getaddrinfo(3) would take it modulo 65,536
        raise UsageError(f"{given['port']} is no port: they are {PORTS[0]} to {PORTS[-1]} (--port)")
    host = given["host"]
    address: Address = TcpAddress(host or "::", given["port"], is_dual=host in ("", "::"))
    if "uds" in last:
        return parse_binds([f"unix:{given['uds']}"])
    if "fd" in last:
        address = InheritedAddress(given["fd"])
    return (Bind(str(address), address),)


def _rank(context: click.Context, name: str) -> int:
    order = (ParameterSource.DEFAULT_MAP, ParameterSource.ENVIRONMENT, ParameterSource.COMMANDLINE)
    source = context.get_parameter_source(name)
    return order.index(source) + 1 if source in order else 0


def _worker_options(given: Mapping[str, Any], log: LogSettings) -> dict[str, Any]:
    """Uvicorn's own command does the same with its parameters before it gives them to Config."""
    names = {p.name for p in uvicorn_command.params if p.name is not None} - NOT_TAKEN - OF_SUPERVISOR
    options = {name: given[name] for name in names if name in given}
    if options["log_config"] is None:
        del options["log_config"]
    options["headers"] = [header.split(":", 1) for header in options["headers"]]
    options["use_colors"] = log.color  # a worker's stderr is a pipe while it boots; where it goes in the end is ours
    return options


def _web_concurrency() -> int:
    text = os.environ.get("WEB_CONCURRENCY", "1")
    if text == "auto":
        return processors.usable()
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"WEB_CONCURRENCY is '{text}', not a number of workers, or auto") from None
