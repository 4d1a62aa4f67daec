"""How the cases of Autobahn's fuzzer ended, and which of them ended worse than with another server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

RANKS = {
    "OK": 0,
    "NON-STRICT": 1,
    "INFORMATIONAL": 2,
    "UNIMPLEMENTED": 2,
    "FAILED BY CLIENT": 3,
    "WRONG CODE": 4,
    "UNCLEAN": 4,
    "FAILED": 5,
    "not run": 6,
}
"""The fuzzer's words, the best first; those of rank 3 and 4 are of the closing only."""


class CaseEnd(msgspec.Struct, frozen=True):
    """What the fuzzer says of the server's behaviour, of how it closed, and the close code that came from it."""

    behavior: str
    close: str
    code: int | None = None

    def __str__(self) -> str:
        return f"{self.behavior}, close {self.close} ({self.code or 'no code'})"

    def worse_than(self, other: CaseEnd) -> bool:
        """In its behaviour or its closing; or another close code, where they matter."""
        if RANKS[self.behavior] > RANKS[other.behavior] or RANKS[self.close] > RANKS[other.close]:
            return True
        return self == msgspec.structs.replace(other, code=self.code) != other and self.behavior != "INFORMATIONAL"


NOT_RUN = CaseEnd("not run", "not run")


class Worse(msgspec.Struct, frozen=True):
    """A case that ended worse with ours than in any run with uvicorn."""

    case: str
    plain: Sequence[CaseEnd]
    ours: CaseEnd

    def __str__(self) -> str:
        plain = " or ".join(dict.fromkeys(map(str, self.plain)))
        return f"{self.case:8} uvicorn: {plain:45} stillup: {self.ours}"


def in_order(case: str) -> tuple[int, ...]:
    """What sorts 2.10 after 2.9."""
    return tuple(map(int, case.split(".")))


def worse(plain: Mapping[str, Sequence[CaseEnd]], ours: Mapping[str, CaseEnd]) -> Sequence[Worse]:
    """The cases that ended worse in ours than in each run with uvicorn, or did not end; ``plain`` has them all."""
    cases = sorted(plain, key=in_order)
    both = (Worse(case, plain[case], ours.get(case, NOT_RUN)) for case in cases)
    return [one for one in both if all(one.ours.worse_than(end) for end in one.plain)]


def tally(ends: Mapping[str, CaseEnd]) -> str:
    """How many ended how, the best first; of the closing what is not OK."""
    behavior = Counter(end.behavior for end in ends.values())
    close = Counter(end.close for end in ends.values() if end.close not in ("OK", "INFORMATIONAL"))
    words = [f"{behavior[word]} {word}" for word in sorted(behavior, key=RANKS.__getitem__)]
    return ", ".join(words + [f"{close[word]} closed {word}" for word in sorted(close, key=RANKS.__getitem__)])
