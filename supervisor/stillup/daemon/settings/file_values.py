"""What a configuration file says, as values of the options: each of a type that the option takes, or with its place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from stillup.daemon.settings.hook_options import FileTable
from stillup.daemon.settings.options import key_of
from stillup.errors import UsageError
from stillup.wire.config_text import ConfigText


def read(file: ConfigText, parameters: Sequence[click.Parameter]) -> dict[str, Any]:
    """The values by the names of the options.

    Raises:
        UsageError: a key or a value means nothing; the message has the place, the key and what it may be.
    """
    keys = {key_of(parameter): parameter for parameter in parameters if parameter.name != "config_file"}
    values: dict[str, Any] = {}
    for key, value in file.values.items():
        parameter = keys.get(key.replace("_", "-"))
        if parameter is None or parameter.name is None:
            raise UsageError(f"{file.place(key)}: unknown key '{key}'{_hint(key, list(keys))}")
        if wrong := _objection(key, value, parameter):
            raise UsageError(f"{file.place(key)}: {wrong}")
        values[parameter.name] = value
    return values


def _objection(key: str, value: Any, parameter: click.Parameter) -> str:
    """Why an option cannot have the value; empty if it can."""
    if isinstance(parameter, FileTable):
        return parameter.objection(value)
    takes_many = parameter.nargs != 1 or (isinstance(parameter, click.Option) and parameter.multiple)
    if takes_many and isinstance(value, str | int | float):
        return f"'{key}' is a list: {key} = [{json.dumps(value, ensure_ascii=False)}]"
    many = value if isinstance(value, list) and takes_many else [value]
    if not all(isinstance(one, str | int | float) for one in many):
        return f"'{key}' cannot be {value}"
    is_flag = isinstance(parameter, click.Option) and parameter.is_flag
    whole = isinstance(parameter.type, click.types.IntParamType)
    for one in many:
        if is_flag and not isinstance(one, bool | str):
            return f"'{key}' is true or false, not {one}"
        if whole and (isinstance(one, bool | float)):
            return f"'{key}' is a whole number, not {json.dumps(one)}"
        if not is_flag and isinstance(one, bool) and isinstance(parameter.type, click.types.FloatParamType):
            return f"'{key}' is a number, not {json.dumps(one)}"
        if isinstance(one, bool | float) and isinstance(parameter.type, click.types.StringParamType | click.Path):
            return f"'{key}' is a text in quotes, not {json.dumps(one)}"
    return ""


def _hint(key: str, keys: Sequence[str]) -> str:
    from stillup.daemon.settings.gunicorn_options import SETTINGS  # noqa: PLC0415 - for a mistake

    if (setting := SETTINGS.get(key.replace("-", "_"))) is not None:
        return f", which is gunicorn's: {setting.advice}"
    from difflib import get_close_matches  # noqa: PLC0415 - for a mistake, too

    near = get_close_matches(key, keys, 1)
    return f"; did you mean '{near[0]}'?" if near else ""
