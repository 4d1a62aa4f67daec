"""The text of a configuration file: ``stillup.toml``, or ``[tool.stillup]`` in a ``pyproject.toml``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from stillup.errors import UsageError

FILES: Final = ("stillup.toml", "pyproject.toml")
"""Where a configuration is looked for in the working directory, in this order."""
PROJECT: Final = FILES[1]
"""The file that other tools have settings in, too."""


class ConfigText(msgspec.Struct, frozen=True):
    """What one file says. Without a file there are no values, and no path."""

    path: str = ""
    text: str = ""
    values: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """The settings, by their keys as they are written."""

    def place(self, key: str) -> str:
        """Where a key stands: ``stillup.toml, line 3``; the file alone if its line is not known."""
        words = "[-_]".join(map(re.escape, re.split("[-_]", key)))
        pattern = re.compile(rf"""^\s*(?:["']?{words}["']?\s*=|\[(?:tool\.stillup\.)?{words}\])""")
        lines = self.text.splitlines()
        number = next((number for number, line in enumerate(lines, 1) if pattern.match(line)), None)
        return self.path if number is None else f"{self.path}, line {number}"

    def word(self, key: str) -> str | None:
        """A value that is a text, None if the key is not there.

        Raises:
            UsageError: it is something else; the message says where it stands.
        """
        value = self.values.get(key, self.values.get(key.replace("-", "_")))
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{self.place(key)}: '{key}' is a text in quotes, not {value}")
        return value


def parse(path: str, text: str) -> ConfigText | None:
    """Read a file's text; None if it is a project's that says nothing of stillup.

    Raises:
        UsageError: it is no TOML, or has no table where one is to be.
    """
    import tomllib  # noqa: PLC0415 - 5 ms, where there is a file

    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: {error}") from error
    if path.rpartition("/")[2] != PROJECT:
        return ConfigText(path, text, table)
    tools = table.get("tool", {})
    own = tools.get("stillup", {}) if isinstance(tools, dict) else {}
    if not isinstance(own, dict):
        raise UsageError(f"{path}: [tool.stillup] is a table of settings, not '{own}'")
    return ConfigText(path, text, own) if own else None


def toml_line(key: str, value: bool | float | str | list[str]) -> str:  # noqa: FBT001 - as the file has them
    """A setting as a line of the file."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # A text in JSON means the same in TOML, but for DEL; and so do numbers, true and false, and lists of these.
    written = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"{key} = {written}"
