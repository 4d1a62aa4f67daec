"""How the tests of a suite ended, and which of them ended otherwise in another run of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

NOT_RUN = "not run"


class Outcome(msgspec.Struct, frozen=True):
    """Passed, failed, skipped or not run; and, unless it passed, what pytest says of that."""

    word: str
    said: str = ""


class Difference(msgspec.Struct, frozen=True):
    """A test that ended in two ways."""

    test: str
    plain: Outcome
    ours: Outcome

    def __str__(self) -> str:
        return f"{self.test}: {self.plain.word} with uvicorn's classes, {self.ours.word} with ours"


def read_outcomes(file: Path) -> dict[str, Outcome]:
    """By test, as ``plugins/outcome_log.py`` wrote them."""
    return {test: Outcome(*ended) for test, ended in json.loads(file.read_text(encoding="utf-8")).items()}


def differences(plain: dict[str, Outcome], ours: dict[str, Outcome]) -> Sequence[Difference]:
    """The tests that did not end in both runs in the same way, or ran in one of them only."""
    missing = Outcome(NOT_RUN)
    both = ((test, plain.get(test, missing), ours.get(test, missing)) for test in [*plain, *(ours.keys() - plain)])
    return [Difference(*one) for one in both if one[1].word != one[2].word]


def summary(outcomes: dict[str, Outcome]) -> str:
    """How many ended how."""
    counts = Counter(outcome.word for outcome in outcomes.values())
    return ", ".join(f"{counts[word]} {word}" for word in sorted(counts, key=lambda word: (word != "passed", word)))
