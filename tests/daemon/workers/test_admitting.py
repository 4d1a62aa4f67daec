"""Whose workers a supervisor lets back in that it did not start."""

from __future__ import annotations

import asyncio
import os
from unittest.mock import Mock

import pytest

from stillup.daemon.settings.rights import Rights
from stillup.daemon.workers import takeover
from stillup.errors import Refused
from stillup.host import processes
from stillup.host.accounts import Account
from tests.asgi.event_loops import until
from tests.daemon.control.served_control import let_pass

APPS, OTHERS = 20_040, 20_041


def admitting(
    patch: pytest.MonkeyPatch, rights: Rights, *owners: int | None, euid: int = 0, groups: tuple[int, ...] = (APPS,)
) -> Rights:
    """What comes of workers that are these users', None for one that has just ended, and of these groups."""
    living = {serial: Mock(pid=serial) for serial, _ in enumerate(owners, 1)}
    with patch.context() as patched:
        patched.setattr(takeover, "survivors", lambda _: living)
        patched.setattr(processes, "owner", lambda pid: owners[pid - 1])
        patched.setattr(processes, "groups", lambda _: frozenset(groups))
        patched.setattr(os, "geteuid", lambda: euid)
        try:
            return takeover.admitting(Mock(), rights)
        finally:
            assert all(process.close.called for process in living.values())


async def test_who_comes_back_late_since_all_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are on no record are heard for a time in which we run: they may have stood still with us."""
    monkeypatch.setattr(takeover, "CLAIMS", 0.5)
    admission = Mock(claim=None)
    hearing = asyncio.create_task(takeover.hear_claims(admission, ()))
    await until(lambda: admission.claim)
    let_pass(5.0)
    for _ in range(10):
        await asyncio.sleep(0)
    said = {"said.draining": True, "said.welcome.worker": 1, "said.welcome.generation": 1}
    late = Mock(**{"process.pid": 7, **said})
    admission.claim(late)
    assert await hearing == [late]


def test_as_they_were_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's and those of the workers' user are let in as it is, and so is nobody."""
    for rights in (Rights(), Rights(worker=Account(APPS, APPS))):
        own = APPS if rights.worker else 0
        for owners in ((), (None,), (0, own), (None, own)):
            assert admitting(monkeypatch, rights, *owners) is rights


def test_of_a_user_that_their_app_has_made_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root lets one other user in."""
    assert admitting(monkeypatch, Rights(), 0, APPS, None, APPS) == Rights(orphans_uid=APPS)


def test_of_another_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change of --worker-group those that are left are let in by their user."""
    rights = Rights(worker=Account(APPS, OTHERS))
    assert admitting(monkeypatch, rights, APPS, groups=(1, OTHERS)) is rights
    assert admitting(monkeypatch, rights, APPS, groups=(1,)).handoff == (0o600, APPS, os.getegid())


def test_whom_it_cannot_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others than those who were said to be the workers, any if we are not root, and several users; with a way out."""
    given = Rights(worker=Account(OTHERS, OTHERS))
    one = rf"a worker of uid {APPS} serves here \(pid 2\), .* start with the --worker-user that they have, or end them"
    with pytest.raises(Refused, match=one):
        admitting(monkeypatch, given, OTHERS, APPS)
    with pytest.raises(Refused, match=one):
        admitting(monkeypatch, Rights(), 0, APPS, euid=OTHERS)
    for rights in (Rights(), Rights(worker=Account(1, 1))):
        several = rf"workers of uid {APPS} and {OTHERS} serve here, .*: end them first \('stillup stop'\)"
        with pytest.raises(Refused, match=several):
            admitting(monkeypatch, rights, OTHERS, APPS)
