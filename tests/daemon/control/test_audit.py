"""The audit's history belongs to those with a right: whoever is denied, and however often, pushes nothing out of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillup.core.access import Principal, Role
from stillup.daemon.control import audit as module
from stillup.daemon.control.audit import AMONG, MOST_DENIED, MOST_OF_ONE, Audit
from stillup.errors import NotPermitted, Refused
from stillup.wire.event_feed import make
from tests.asgi.event_loops import until

STRANGER = Principal(20001, 20001, 77)


class Kept:
    """A history of the length of the real one, and the audit that tells it."""

    def __init__(self) -> None:
        self.next = 1
        self.refused = 0
        self.events: deque[tuple[str, Mapping[str, Any]]] = deque(maxlen=AMONG)
        self.audit = Audit(self._announce, lambda: self.next, self._count)

    def _announce(self, kind: str, data: Mapping[str, Any]) -> None:
        make(kind, data, seq=self.next, at=datetime.now(UTC), monotonic=1.0)  # it has that shape
        self.next += 1
        self.events.append((kind, data))

    def _count(self) -> None:
        self.refused += 1

    def ask(self, who: Principal, role: Role, error: Exception | None, method: str = "POST") -> None:
        try:
            with self.audit.request(method, "/v1/stop", who, role):
                if error is not None:
                    raise error
        except Refused:
            pass

    def outcomes(self) -> list[str]:
        return [data["outcome"] for kind, data in self.events if kind == "request.audited"]


@pytest.mark.parametrize(
    ("who", "role", "error"),
    [
        (STRANGER, Role.NONE, NotPermitted("no role")),
        (STRANGER, Role.NONE, Refused("a later client", code="client-too-new")),
        (Principal(20002, 20002, 78), Role.VIEWER, NotPermitted("a viewer")),
        (Principal(0, 0, 79, for_worker=True), Role.NONE, NotPermitted("a worker")),
        (Principal(0, 0, 80, unseen="it has ended"), Role.ADMIN, Refused("who is that?", code="unavailable")),
    ],
    ids=["no role", "no role, another reason", "a role that is too low", "a worker", "it cannot be seen who"],
)
async def test_refused_callers_push_nothing_out(who: Principal, role: Role, error: Exception) -> None:
    """6,000 requests that are denied, and what was accepted before is still there; each of them is counted."""
    kept = Kept()
    for _ in range(3):
        kept.ask(Principal(0, 0, 1), Role.ADMIN, None)
    for _ in range(6_000):
        kept.ask(who, role, error)
    kept.audit.close()
    assert kept.outcomes().count("accepted") == 3
    assert len(kept.events) == 3 + MOST_OF_ONE
    assert kept.refused == 6_000


async def test_looks_are_counted_alone() -> None:
    """Who may not even look is counted, and told of nowhere."""
    kept = Kept()
    kept.ask(STRANGER, Role.NONE, NotPermitted("no role"), method="GET")
    assert (kept.refused, list(kept.events)) == (1, [])


async def test_one_user_hides_no_other() -> None:
    """Beside a flood of one user's, what another is denied is told in full; and that user's worker is another."""
    kept = Kept()
    for _ in range(500):
        kept.ask(STRANGER, Role.NONE, NotPermitted("no role"))
    kept.ask(Principal(20003, 20003, 81), Role.NONE, NotPermitted("no role"))
    kept.ask(Principal(20001, 20001, 82, for_worker=True), Role.NONE, NotPermitted("a worker"))
    kept.audit.close()
    assert [data["principal"]["pid"] for _, data in kept.events][-2:] == [81, 82]


async def test_those_with_a_right_are_always_told_of() -> None:
    """What an operator asks for in vain is no denial: each is an event."""
    kept = Kept()
    for _ in range(600):
        kept.ask(Principal(0, 0, 1), Role.ADMIN, Refused("nothing to abort", code="out-of-order"))
    assert (kept.outcomes().count("out-of-order"), kept.refused) == (600, 0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 400)), max_size=40))
def test_a_share_of_the_history(asked: list[tuple[int, int]]) -> None:
    """However many users ask, and whatever is accepted in between, denials never are more than their share of it."""

    async def ask() -> None:
        kept = Kept()
        for uid, times in asked:
            for _ in range(times):
                kept.ask(Principal(uid, uid, 1), Role.NONE, NotPermitted("no role"))
                assert kept.outcomes().count("denied") <= MOST_DENIED
            kept.ask(Principal(0, 0, 1), Role.ADMIN, None)
        kept.audit.close()

    asyncio.run(ask())


async def test_a_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many were denied beyond that, and who asked most; each time after a longer pause, until there are none."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.05)
    kept = Kept()
    numbers: list[Mapping[str, Any]] = []
    for round_ in range(1, 5):
        for _ in range(MOST_OF_ONE + 7 if round_ == 1 else 7):
            kept.ask(STRANGER, Role.NONE, NotPermitted("no role"))
        if round_ == 1:
            for _ in range(MOST_OF_ONE + 2):
                kept.ask(Principal(20009, 1, 1), Role.NONE, NotPermitted("no role"))
        await until(lambda: sum(kind == "requests.denied" for kind, _ in kept.events) == round_)  # noqa: B023
        numbers = [data for kind, data in kept.events if kind == "requests.denied"]
    assert [(data["count"], data["uid"], data["uids"]) for data in numbers] == [(9, 20001, 2), *[(7, 20001, 1)] * 3]
    assert [data["seconds"] for data in numbers] == [0.02, 0.04, 0.05, 0.05]
    await until(lambda: kept.audit._timer is None)
    assert kept.audit._pause == 0.02
    kept.audit.close()
