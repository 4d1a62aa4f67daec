"""What an engine is given where nothing is to be real."""

from __future__ import annotations

from typing import Final

from supervisor.core.commands import Command
from supervisor.core.model import Fleet


class _Keeper:
    async def save(self, _: Fleet, *, asked: bool) -> str:
        return ""

    async def caught_up(self, _: float) -> bool:
        return True


class _Effects:
    def perform(self, _: Command) -> None:
        pass


KEEPER: Final = _Keeper()
"""Everything is on record."""
EFFECTS: Final = _Effects()
"""Nothing is performed."""
