"""What is run around a rollout, as it was configured: a table of the file, and of nothing else.

No flag and no variable names a program, and no request: who may reload decides when it is run, and not what.
"""

from __future__ import annotations

from typing import Any, Final

import click

from stillup.core.hook_settings import HookKind, Hooks

TABLE: Final = "hooks"
"""Its name in the file, and the parameter's."""
_EXAMPLE: Final = 'before = ["python", "manage.py", "migrate"]'


class _Programs(click.ParamType):  # type: ignore[type-arg]  # not generic in the oldest click that we support
    """The table, which was looked at when the file was read."""

    name = TABLE

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Hooks:  # noqa: ARG002 - click's
        if isinstance(value, Hooks):
            return value
        return Hooks(**{key: tuple(words) for key, words in value.items()})


class FileTable(click.Option):
    """A parameter that only the file has."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """No word of the command line is its."""

    def objection(self, value: Any) -> str:
        """Why it cannot be what the file says; empty if it can."""
        if not isinstance(value, dict):
            return f"'{TABLE}' is a table: [{TABLE}], and below it {_EXAMPLE}"
        for key, words in value.items():
            if key not in set(HookKind):
                return f"[{TABLE}] has no '{key}', but {' and '.join(HookKind)}; --hook-timeout is a key of its own"
            if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
                return f"'{key}' is a program and its arguments, a list of texts and no shell's line: {_EXAMPLE}"
            if not words[0] or any("\0" in word for word in words):
                return f"'{key}' names no program"
        return ""


def parameters(seconds: click.ParamType) -> list[click.Parameter]:  # type: ignore[type-arg]  # as above
    """What the command line says of it; ``seconds``: the type of a deadline."""
    return [
        FileTable([f"--{TABLE}"], type=_Programs(), default=Hooks(), hidden=True),
        click.Option(
            ["--hook-timeout"],
            type=seconds,
            metavar="SECONDS",
            default=600.0,
            show_default=True,
            help="Seconds that a program of [hooks] in the file may take: before, without which a rollout is rejected, "
            "such as a migration, or after its cut-over. Then it is ended.",
        ),
    ]
