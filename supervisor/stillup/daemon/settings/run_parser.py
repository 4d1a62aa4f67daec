"""The parser of ``run`` and ``check``: defaults from a file, a help in groups, and words of other servers."""

from __future__ import annotations

import os
from typing import Final

import click

from stillup.daemon.settings import config
from stillup.daemon.settings.help_groups import grouped
from stillup.errors import UsageError

_FOREIGN: Final = "stillup.foreign"
"""The key of click's ``Context.meta`` under which gunicorn's options are, once a word was met that is none of ours."""
_WORDS: Final = "stillup.words"
"""The key under which the command's words are, as they were given."""
_CONFIG: Final = ("--config", "-c")


def words_of(context: click.Context) -> tuple[str, ...]:
    """The words that a command was given."""
    words: tuple[str, ...] = context.meta[_WORDS]
    return words


class RunCommand(click.Command):
    """A command whose defaults may come from a file, and whose refusals are one line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a word is being completed, which no file is needed for
            return super().parse_args(ctx, args)
        ctx.meta[_WORDS] = tuple(args)
        try:
            config.load_file(ctx, _config_flag(args))
        except UsageError as error:
            raise click.UsageError(str(error), ctx) from error
        try:
            return self._parse(ctx, args)
        except click.MissingParameter as error:
            if error.param is None or error.param.name != "app":
                raise
            message = "which app? MODULE:ATTRIBUTE, such as main:app; 'stillup init' writes it into a stillup.toml"
            raise click.UsageError(message, ctx) from error
        except click.BadParameter as error:
            source = config.source_of(ctx, error.param) if error.param is not None else ""
            if not source:
                raise
            raise click.BadParameter(f"{error.message} ({source})", ctx, error.param, error.param_hint) from error

    def _parse(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words, and again with those of gunicorn where one means nothing here."""
        try:
            return super().parse_args(ctx, list(args))
        except click.NoSuchOption as error:
            from stillup.daemon.settings.gunicorn_options import words  # noqa: PLC0415 - most know our own

            ctx.meta[_FOREIGN] = words({flag for one in self.params for flag in (*one.opts, *one.secondary_opts)})
            try:
                return super().parse_args(ctx, list(args))
            except click.NoSuchOption:
                raise error from None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *ctx.meta.get(_FOREIGN, [])]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        parameters = self.get_params(ctx)
        for heading, members in grouped(parameters):
            rows = [row for one in members if (row := one.get_help_record(ctx)) is not None]
            with formatter.section(heading):
                formatter.write_dl(rows)


def _config_flag(args: list[str]) -> str | None:
    """The file must be known before click reads the rest, whose defaults it holds.

    Raises:
        UsageError: it is a program's: gunicorn's configuration is one.
    """
    path = _config_word(args) or os.environ.get("STILLUP_CONFIG")
    if path is not None and (path.endswith(".py") or path.startswith(("python:", "file:"))):
        raise UsageError(f"{path} is gunicorn's: 'stillup migrate {path}' writes a stillup.toml of it")
    return path


def _config_word(args: list[str]) -> str | None:
    for index, arg in enumerate(args):
        if arg == "--":
            break
        if arg in _CONFIG:
            return args[index + 1] if index + 1 < len(args) else None
        if arg.startswith("--config="):
            return arg.partition("=")[2]
        if arg.startswith("-c") and not arg.startswith("--"):
            return arg[2:]
    return None
