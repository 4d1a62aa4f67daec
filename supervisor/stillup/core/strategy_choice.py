"""What somebody says of the strategy for one reload; the policy says the rest, and which ones may be chosen."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from stillup.core.policy import Policy
from stillup.core.strategy import Strategy, StrategyKind
from stillup.errors import UsageError

_BOUNDS: Final = ("max_surge", "max_unavailable")
_WATCH: Final = ("canary", "canary_percent", "canary_time", "canary_timeout", "min_requests", "gated")


class StrategyChoice(msgspec.Struct, frozen=True):
    """What was said; None is a word that was not. The words are those of ``Strategy``."""

    strategy: StrategyKind | None = None
    max_surge: int | None = None
    max_unavailable: int | None = None
    canary: int | None = None
    canary_percent: bool | None = None
    canary_time: float | None = None
    canary_timeout: float | None = None
    min_requests: int | None = None
    gated: bool | None = None
    standby: float | None = None

    def with_rest_of(self, policy: Policy) -> Strategy | None:
        """The whole strategy, with the policy's words where none was said; None if nothing was.

        Raises:
            UsageError: a word was said of a strategy that knows it not, or has no room for it, or one that is not
                allowed was chosen.
        """
        if self == StrategyChoice():
            return None
        strategy = policy.strategy
        kind = self.strategy if self.strategy is not None else strategy.kind
        _check_allowed(kind, policy)
        bounds, watch = self._said(_BOUNDS), self._said(_WATCH)
        if bounds and kind is StrategyKind.BLUE_GREEN:
            raise UsageError(
                f"--max-surge and --max-unavailable (max_surge, max_unavailable) are of rolling, and this reload is "
                f"{kind}: say --strategy rolling, too"
            )
        if watch and not kind.watches:
            words = ", ".join(sorted(watch))
            raise UsageError(f"{words}: that is of canary, and this reload is {kind}: say --strategy canary, too")
        if self.canary is not None:
            watch.setdefault("canary_percent", False)
        if self.canary_time is not None:
            watch.setdefault("canary_timeout", max(self.canary_time, strategy.canary_timeout))
        others = self._said(("standby",))
        rolls = kind.watches and (bool(bounds) or strategy.is_bounded)
        made = msgspec.structs.replace(strategy, kind=kind, rolls=rolls, **bounds, **watch, **others)
        if self.standby and made.is_bounded:
            message = (
                "--standby (standby) keeps all old workers beside the new ones, which rolling, and a canary that goes "
                "on as rolling, has no room for: say --strategy blue-green, too"
            )
            raise UsageError(message)
        return made

    def _said(self, names: tuple[str, ...]) -> dict[str, int | float]:
        return {name: word for name in names if (word := getattr(self, name)) is not None}


def canary_of(text: str) -> tuple[int, bool]:
    """What ``--canary`` says: so many workers, or of a hundred, which is whether the second is true.

    Raises:
        UsageError: it is neither.
    """
    if (found := re.fullmatch(r"([0-9]{1,4})(%?)", text)) is None:
        raise UsageError(f"--canary {text}: it is a number of workers, such as 1, or a part of them, such as 10%")
    return int(found[1]), found[2] == "%"


def _check_allowed(kind: StrategyKind, policy: Policy) -> None:
    allowed = (policy.strategy.kind, *policy.allow_strategy)
    if policy.allow_strategy and kind not in allowed:
        names = " or ".join(dict.fromkeys(f"--strategy {one}" for one in allowed))
        raise UsageError(f"a reload by {kind} is not allowed here (--allow-strategy): take {names}")
