"""Reads what gunicorn is told, and says the same in our settings: the work of ``stillup migrate``.

A ``gunicorn.conf.py`` is a program, and what it says is known when it has run: it is executed, as the caller, in the
caller's environment and working directory, as gunicorn does at each start.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click
import msgspec

from stillup.daemon.settings.gunicorn_options import SETTINGS, WORKER_CLASSES
from stillup.daemon.settings.options import key_of
from stillup.errors import UsageError
from stillup.host import config_file
from stillup.wire.address import parse_bind
from stillup.wire.runtime_paths import check_name

Value = bool | int | float | str | list[str]
_WSGI: Final = 'an app that is WSGI has interface = "wsgi", which runs it in threads'
_LEAST_TIMEOUT: Final = 3


class Migrated(msgspec.Struct, frozen=True):
    """What gunicorn was told, in our settings."""

    values: Mapping[str, Value]
    """By their keys."""
    left: Sequence[tuple[str, str]]
    """gunicorn's settings that have no counterpart, or another meaning; each with what to do."""


def execute(path: str) -> Mapping[str, Any]:
    """Run gunicorn's configuration; its variables.

    Raises:
        UsageError: it cannot be read, or fails; the message says where.
    """
    sys.path.insert(0, os.getcwd())
    kind, _, rest = path.partition(":")
    try:
        if kind == "python" and rest:
            return vars(importlib.import_module(rest))
        path = rest if kind == "file" and rest else path
        source = config_file.read(path, named=True)
        namespace: dict[str, Any] = {"__name__": "__config__", "__file__": os.path.abspath(path)}
        exec(compile(source, path, "exec"), namespace)  # noqa: S102 - the caller's own program, which was asked for
    except FileNotFoundError as error:
        raise UsageError(f"{error.filename or path} is not there") from error
    except SyntaxError as error:
        raise UsageError(f"{path}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"{path}{_line_in(path, error)}: {type(error).__name__}: {error}") from error
    return namespace


def arguments(words: Sequence[str]) -> dict[str, Any]:
    """What gunicorn's command line says; ``config`` is the file that it names.

    Raises:
        UsageError: a word is none of gunicorn's.
    """
    parser = argparse.ArgumentParser(prog="gunicorn", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", dest="config")
    for name, setting in SETTINGS.items():
        if not setting.flags:
            continue
        if setting.is_switch:
            parser.add_argument(*setting.flags, dest=name, action="store_const", const=True)
        else:
            parser.add_argument(*setting.flags, dest=name, action="append")
    parser.add_argument("wsgi_app", nargs="?")
    try:
        said, unknown = parser.parse_known_args(list(words))
    except (argparse.ArgumentError, SystemExit) as error:
        raise UsageError(f"gunicorn's words: {error}") from error
    if unknown:
        raise UsageError(f"{' '.join(unknown)}: gunicorn has no such option")
    given = {name: value for name, value in vars(said).items() if value is not None}
    many = {"bind", "raw_env", "reload_extra_files"}
    return {n: v[-1] if isinstance(v, list) and n not in many else v for n, v in given.items()}


def of_variable(text: str) -> dict[str, Any]:
    """What GUNICORN_CMD_ARGS says.

    Raises:
        UsageError: it is no command line.
    """
    try:
        return arguments(shlex.split(text))
    except (ValueError, UsageError) as error:
        raise UsageError(f"GUNICORN_CMD_ARGS: {error}") from error


def migrate(said: Mapping[str, Any], parameters: Sequence[click.Parameter]) -> Migrated:
    """Say it in our settings, with values that the options take."""
    options = {key_of(parameter): parameter for parameter in parameters}
    values: dict[str, Value] = {}
    left: list[tuple[str, str]] = []
    for name in (name for name in SETTINGS if name in said):
        try:
            found, note = _translated(name, said[name])
            found = {key: _checked(options, key, value) for key, value in found.items()}
        except (UsageError, click.ClickException, ValueError, TypeError, KeyError) as error:
            why = error.message if isinstance(error, click.ClickException) else str(error)
            left.append((name, f"{_shown(said[name])} is no value of its counterpart: {why}"))
            continue
        values.update(found)
        if note:
            left.append((name, note))
    if "bind" in values and (mode := _socket_mode(said)) is not None:
        values["bind"] = [_with_mode(str(bind), mode, said) for bind in _listed(values["bind"])]
    if "worker_class" not in said:
        left.append(("worker_class", f"is not set, which is gunicorn's for WSGI: {_WSGI}"))
    return Migrated({key: values[key] for key in options if key in values}, left)


def _translated(name: str, value: Any) -> tuple[dict[str, Any], str]:
    """The values by our keys, and what there is to say about it."""
    setting = SETTINGS[name]
    if callable(value) and not isinstance(value, type):
        return {}, f"is a function: {setting.advice}"
    if value is None or value is False or value in ("", [], {}, ()):
        return ({"access-log": False}, "") if name == "accesslog" else ({}, "")
    match name:
        case "wsgi_app":
            return _app(str(value))
        case "bind":
            texts = value if isinstance(value, list | tuple) else str(value).split(",")
            return {"bind": [_bind(str(text).strip()) for text in texts]}, ""
        case "worker_class":
            return _worker_class(value)
        case "timeout":
            least = min(float(value), 1) * _LEAST_TIMEOUT
            return {"hang-timeout": max(float(value), least)}, setting.advice
        case "worker_connections":
            return {"limit-concurrency": value}, setting.advice
        case "accesslog" if value == "-":
            return {"access-log": True}, ""
        case "errorlog":
            return ({}, "") if value == "-" else ({setting.key: str(value)}, setting.advice)
        case "loglevel":
            return {"log-level": str(value).lower()}, ""
        case "raw_env":
            names = ", ".join(str(one).partition("=")[0] for one in value)
            return {}, f"{names}: {setting.advice}"
        case "proc_name":
            return {"name": check_name(str(value))}, ""
        case "pythonpath":
            first, *more = str(value).split(",")
            return {"app-dir": first}, f"{', '.join(more)}: one directory alone is --app-dir" if more else ""
        case "forwarded_allow_ips" if isinstance(value, list | tuple):
            return {"forwarded-allow-ips": ",".join(map(str, value))}, ""
        case "ssl_version" | "cert_reqs":
            return {setting.key: int(value)}, ""
        case "workers" | "max_requests" | "max_requests_jitter" if int(value) == 0:
            return {}, ""
        case "threads" if int(value) == 1:
            return {}, ""
        case "umask" if value in (0, "0"):
            return {}, ""
    return ({setting.key: value}, "") if setting.key else ({}, setting.note)


def _app(text: str) -> tuple[dict[str, Any], str]:
    if called := re.fullmatch(r"([\w.]+:[\w.]+)\((.*)\)", text):
        note = f"{text}: a factory is called without arguments" if called[2].strip() else ""
        return {"app": called[1], "factory": True}, note
    return {"app": text if ":" in text else f"{text}:application"}, ""


def _bind(text: str) -> str:
    """An address as ours are written; gunicorn's port is 8000 where it names none."""
    ours = re.sub(r"^fd://", "fd:", re.sub(r"^(unix|tcp)://", lambda found: f"{found[1]}:", text))
    ours = ours.removeprefix("tcp:")
    if not re.match(r"(unix|fd):", ours) and not re.search(r":\d+$", ours):
        ours = f"{ours}:8000"
    parse_bind(ours)
    return ours


def _socket_mode(said: Mapping[str, Any]) -> int | None:
    """The mode that gunicorn's umask leaves to a socket's file; None if it is none to speak of."""
    text = str(said.get("umask", 0))
    try:
        umask = int(text, 8 if re.fullmatch(r"0\d+", text) else 0)
    except ValueError:
        return None
    return 0o666 & ~umask if umask else None


def _with_mode(bind: str, mode: int, said: Mapping[str, Any]) -> str:
    """A bind whose socket file has the mode that gunicorn's has, and belongs to its workers' user and group."""
    if not bind.startswith("unix:") or bind.startswith("unix:@"):
        return bind
    owner = "".join(f",{name}={said[name]}" for name in ("user", "group") if said.get(name) not in (None, ""))
    return f"{bind},mode={mode:04o}{owner}"


def _listed(value: Value) -> list[str]:
    return value if isinstance(value, list) else [str(value)]


def _worker_class(value: Any) -> tuple[dict[str, Any], str]:
    name = f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else str(value)
    if name.startswith(WORKER_CLASSES):
        return ({"http": "h11", "loop": "asyncio"}, "") if "H11" in name else ({}, "")
    return {"interface": "wsgi"}, f"{name} serves WSGI, and {_WSGI}"


def _checked(options: Mapping[str, click.Parameter], key: str, value: Any) -> Any:
    """The value as the option reads it.

    Raises:
        click.BadParameter: it does not take that.
        KeyError: this uvicorn has no such option.
    """
    parameter = options[key]
    if isinstance(value, list | tuple):
        return [str(parameter.type.convert(one, parameter, None)) for one in value]
    if isinstance(parameter, click.Option) and parameter.multiple:
        return [str(parameter.type.convert(value, parameter, None))]
    found = parameter.type.convert(value, parameter, None)
    return found if isinstance(found, bool | int | float) else str(found)


def _shown(value: Any) -> str:
    return repr(value)[:80]


def _line_in(path: str, error: BaseException) -> str:
    """The line of the file in which it failed."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f", line {line}" if line else ""
