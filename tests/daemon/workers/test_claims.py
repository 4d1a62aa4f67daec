"""Workers that come back though no record knows them: what they may say of themselves, and what is made of it."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace

import msgspec
import pytest

from stillup.core.policy import Policy
from stillup.core.worker_settings import WorkerSettings
from stillup.daemon.workers.admission import Claimant
from stillup.daemon.workers.takeover import fleet_of
from stillup.daemon.workers.worker_answers import LONGEST_CLAIM
from stillup.host.processes import hold
from stillup.wire import handoff_messages
from stillup.wire.handoff_messages import Batch, Resume
from tests.daemon.workers.test_admission import BACK, RELEASE, UNKNOWN, WELCOME, Supervisor, resume, talk
from tests.wire.wire_messages import said, things


@pytest.mark.parametrize(("more", "is_taken"), [(0, True), (LONGEST_CLAIM, False)])
async def test_what_a_claim_may_weigh(more: int, *, is_taken: bool) -> None:
    """A thousand workers that are on no record put no more on one than can be read."""
    supervisor = Supervisor(open=False, claims=True, admits=True, refuses=False)
    welcome = msgspec.structs.replace(WELCOME, options={"headers": "x" * more})
    with things() as have:
        claim = said(Resume(handoff_messages.PROTOCOL, UNKNOWN, False, welcome, have.infos, have.cookies))
        heard = await talk(supervisor, have, [claim, said(Batch(3), *have.right)])
        assert heard == (["Return", "Taken", "Resumed", "Refusal"] if is_taken else ["Refusal"])
        assert len(supervisor.claimants) == is_taken
        known = replace(resume(have), packet=claim.packet.replace(UNKNOWN.encode(), BACK.encode()))
        assert "Resumed" in await talk(supervisor, have, [known, said(Batch(3), *have.right)]), (
            "that is on record already"
        )
    await supervisor.close()


def test_what_no_worker_decides() -> None:
    """One that is on no record says what it runs, and what replaces it runs that: not with rights of its choice."""
    ours = WorkerSettings(
        proxy_uids=(0,), proxy_gids={"web": 33}, log_form="json", log_capture=True, reload_dirs=("/",)
    )
    its = WorkerSettings(health_path="/its", proxy_uids=(7,), proxy_gids={"web": 7}, has_terminal=True)
    with closing(hold(os.getpid())) as process:
        welcome = msgspec.structs.replace(WELCOME, settings=its)
        claimant = Claimant(process, Resume(handoff_messages.PROTOCOL, UNKNOWN, False, welcome, [], None))
        like = msgspec.structs.replace(RELEASE, settings=ours)
        fleet = fleet_of([claimant], like, Policy(), 1, 0.0)
    settings = fleet.generations[1].release.settings
    assert settings == msgspec.structs.replace(ours, health_path="/its")
