"""The options of the health probe: what is asked, and which answers are healthy."""

from __future__ import annotations

import re
from typing import Any, Final

import click

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name (RFC 9110, 5.6.2)."""
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_STATUS: Final = re.compile(r"([1-9][0-9]{2})(?:-([1-9][0-9]{2}))?")


class StatusRanges(click.ParamType):  # type: ignore[type-arg]  # not generic in the oldest click that we support
    """Statuses and ranges of them, with commas between: ``200-399,401``."""

    name = "statuses"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):  # the default, which may be converted again
            return value
        ranges = []
        for part in str(value).split(","):
            match = _STATUS.fullmatch(part.strip())
            if match is None or int(match[2] or match[1]) < int(match[1]):
                self.fail(f"'{part}' is no HTTP status and no range of them, such as 204 or 200-399.", param, ctx)
            ranges.append((int(match[1]), int(match[2] or match[1])))
        return tuple(ranges)


class Header(click.ParamType):  # type: ignore[type-arg]  # as above
    """``NAME: VALUE``. In a variable each has a line of its own, since a value may have blanks."""

    name = "header"
    envvar_list_splitter = "\n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        name, colon, rest = str(value).partition(":")
        text = rest.strip(" \t")
        # The value may be a token: it is not shown.
        if not colon or not _NAME.fullmatch(name.strip()) or not _VALUE.fullmatch(text):
            self.fail("it is 'NAME: VALUE', such as 'X-Forwarded-Proto: https'.", param, ctx)
        return name.strip(), text


def parameters() -> list[click.Parameter]:
    """What the command line says of it."""
    return [
        click.Option(
            ["--health-path"],
            help="A new worker must answer this path before it serves; asked in its own process. See --health-status.",
        ),
        click.Option(["--health-host"], default="localhost", show_default=True, help="The health probe's Host header."),
        click.Option(
            ["--health-header", "health_headers"],
            type=Header(),
            multiple=True,
            metavar="HEADER",
            help="A further header of the health probe, such as 'X-Forwarded-Proto: https' where the app redirects "
            "to https; may be given several times.",
        ),
        click.Option(
            ["--health-status"],
            type=StatusRanges(),
            metavar="STATUSES",
            default="200-299",
            show_default=True,
            help="The answers that are healthy: statuses and ranges, such as 200-399,401. A redirect, a client error "
            "(each five times in a row) or an exception fails the boot at once; anything else is asked again.",
        ),
    ]
