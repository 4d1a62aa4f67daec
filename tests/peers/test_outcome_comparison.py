"""What `make prove-peers` takes for a difference between two runs of uvicorn's own tests."""

from __future__ import annotations

import json
from pathlib import Path

from tests.peers.outcome_comparison import Outcome, differences, read_outcomes, summary

PASSED, FAILED, SKIPPED = Outcome("passed"), Outcome("failed", "assert False"), Outcome("skipped", "no zttp")


def test_alike() -> None:
    """What ended in the same way is no difference, whatever was said of it: a failure of uvicorn's own neither."""
    plain = {"a": PASSED, "b": FAILED, "c": SKIPPED}
    assert differences(plain, {**plain, "b": Outcome("failed", "assert None")}) == []


def test_each_difference_is_found() -> None:
    """A test that fails, is skipped, did not run, or ran in addition with our classes."""
    plain = {"fails": PASSED, "is skipped": PASSED, "is missing": PASSED, "passes": FAILED}
    found = differences(plain, {"fails": FAILED, "is skipped": SKIPPED, "passes": PASSED, "is new": PASSED})
    assert [(one.test, one.plain.word, one.ours.word) for one in found] == [
        ("fails", "passed", "failed"),
        ("is skipped", "passed", "skipped"),
        ("is missing", "passed", "not run"),
        ("passes", "failed", "passed"),
        ("is new", "not run", "passed"),
    ]
    assert str(found[0]) == "fails: passed with uvicorn's classes, failed with ours"


def test_summary(tmp_path: Path) -> None:
    """The line that is printed of a run names what passed first."""
    file = tmp_path / "outcomes"
    file.write_text(json.dumps({"a": ["failed", "why"], "b": ["passed", ""], "c": ["passed", ""]}))
    assert summary(read_outcomes(file)) == "2 passed, 1 failed"
