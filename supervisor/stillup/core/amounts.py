"""Numbers of things in words for people."""

from __future__ import annotations


def amount(number: int, one: str, many: str = "") -> str:
    """So many: ``1 worker``, ``2 workers``. ``many`` is the plural, where that is more than ``one`` with an s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def sessions_among(number: int) -> str:
    """What is said behind connections of the sessions among them; nothing where there are none."""
    return f" ({amount(number, 'session')})" if number else ""
