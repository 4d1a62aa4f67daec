"""How the events read that tell of sessions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from stillup.wire.event_feed import make


def text_of(kind: str, **data: object) -> str:
    return make(kind, data, seq=1, at=datetime(2026, 1, 1, tzinfo=UTC), monotonic=1.0).text


@pytest.mark.parametrize(("told", "reads"), [(0, "0 closed"), (2, "2 told to close")])
def test_those_among_what_moved(told: int, reads: str) -> None:
    """A generation that has left says how many of its connections were sessions."""
    said = text_of("generation.gone", generation=2, moved=3, sessions=1, closed=0, told_to_close=told)
    assert said == f"gen 2 has left: 3 connections (1 session) moved on, {reads}"


def test_those_that_did_not_go_on() -> None:
    """How many for which reason."""
    said = text_of("sessions.refused", worker="2.1", sessions={"unaware": 1, "app-failed": 3})
    assert "worker 2.1 did not go on with 1 session (unaware), 3 sessions (app-failed): " in said
