"""What a process is started as."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from stillup.host.accounts import Account


class Program(msgspec.Struct, frozen=True):
    """A command line, an environment, and whose it is."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    """What all of its kind have."""
    own_environment: Mapping[str, str] = {}
    """What this one has beside that."""
    account: Account | None = None
    """Whose it is; None for our own user's."""
    has_terminal: bool = False
    """Whether its stdin is our terminal; else it has nothing to read."""
    template: bool = False
    """Whether it may be forked from a template, which is started by the same argv, but for the last word."""
    warm: tuple[str, ...] = ()
    """Modules that a template imports beside what it knows itself; of those that it cannot import it is told."""
    imports: tuple[str, ...] = ()
    """And others, as far as they are installed."""
    preload: bool = False
    """Whether it may be forked from a preloader, which is started by the same argv, but for the last word."""
