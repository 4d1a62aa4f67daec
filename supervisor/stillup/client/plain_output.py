"""Where all that the commands print is written: what others have chosen is shown, and no control of it is sent."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import click

from stillup.host import standard_streams
from stillup.wire.plain_text import escaped, escaped_json, escaped_lines

Part: TypeAlias = str | tuple[str, str]
"""A text, or a text and its style."""
_FORCED: Final = ("FORCE_COLOR", "TTY_COMPATIBLE")
"""Variables by which rich takes what is no terminal for one."""


def echo(line: str, *, err: bool = False) -> None:
    """Print one line; an end of a line in it is shown, too."""
    click.echo(escaped(line), err=err)


def echo_lines(text: str) -> None:
    """Print a text of our own that has several lines."""
    click.echo(escaped_lines(text))


def echo_json(text: str) -> None:
    """Print JSON, which stays JSON."""
    if sys.stdout is not None:  # as in _print_plain
        click.echo(escaped_json(text))


def is_terminal() -> bool:
    """Whether a person reads what is printed; not if it was closed by whoever started us."""
    return sys.stdout is not None and sys.stdout.isatty()


def is_unread() -> bool:
    """Whether nobody reads any more what is printed, so that there is no use in going on to print."""
    return standard_streams.unwritten(sys.stdout) is not None


@contextlib.contextmanager
def until_unread() -> Iterator[None]:
    """Do what has no end of its own: it ends without an error when whoever reads our output leaves, as ``head`` does.

    A reader that has left is noticed by a thread, since there may be nothing to print for long.
    """
    if sys.stdout is None or sys.stdout is not sys.__stdout__:
        yield
        return
    import threading  # noqa: PLC0415 - for what goes on without end

    lock = threading.Lock()
    over = False

    def watch() -> None:
        if standard_streams.wait_for_reader_to_leave(sys.stdout):
            with lock:
                if not over:
                    # What the main thread waits for would be interrupted by a signal alone, which may come in the
                    # midst of a finalizer; and there is nobody to tell anything to, and nothing to be put in order.
                    os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        with lock:
            over = True


class Printer:
    """Prints lines for people: with colour on a terminal, without highlighting, never wrapped."""

    def __init__(self) -> None:
        # What goes into a pipe or a file has no colours, and need not wait for rich: 25 ms.
        is_plain = not is_terminal() and not any(os.environ.get(name) for name in _FORCED)
        self._print = _print_plain if is_plain else _rich_print()

    def line(self, *parts: Part) -> None:
        """Print one line; an end of a line in a part is shown, too."""
        self._print([(escaped(part), "") if isinstance(part, str) else (escaped(part[0]), part[1]) for part in parts])


def _print_plain(parts: Sequence[tuple[str, str]]) -> None:
    if sys.stdout is not None:  # click before 8.1.4 fails there
        click.echo("".join(text for text, _ in parts))


def _rich_print() -> Callable[[Sequence[tuple[str, str]]], None]:
    from rich.console import Console  # noqa: PLC0415 - only a terminal waits for it
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    return lambda parts: console.print(Text.assemble(*parts))
