"""Adoption queues that a worker brings when it comes back: whose are read, and whose are not."""

from __future__ import annotations

import pytest

from stillup.core import message_allowance
from stillup.wire.handoff_messages import Batch
from tests.daemon.workers.test_admission import FRESH, Supervisor, opening, resume, talk
from tests.wire.wire_messages import said, things


async def test_who_was_given_the_queue_brings_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker makes of its copies is not read beside the queue; what one of another supervisor's has is."""
    monkeypatch.setattr(message_allowance, "PER_SECOND", 1e9)  # it may come back as often as it likes
    supervisor = Supervisor(open=True, claims=False, admits=True, refuses=False)
    whole = ["Return", "Taken", "Resumed", "Reopened"]
    with things() as have:
        assert await talk(supervisor, have, opening("hello-all", have)) == ["Welcome", "Offer", "Batch"]
        for _ in range(3):
            assert await talk(supervisor, have, [resume(have, FRESH), said(Batch(3), *have.right)]) == whole
        assert supervisor.custody.older == []
        assert await talk(supervisor, have, opening("resume-all", have)) == whole
        assert supervisor.custody.older == [have.cookies[0]]
        await supervisor.close()
