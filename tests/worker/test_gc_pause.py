"""The garbage collector is off while connections come in bulk, and only then."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from stillup.worker import gc_pause
from stillup.worker.gc_pause import GcPause, leaving
from tests.asgi.event_loops import until
from tests.worker.drainable_worker import idle, working

pytestmark = pytest.mark.usefixtures("loop_factory")

FROZEN_AT_START = gc_pause._frozen_at_start


@pytest.fixture(autouse=True)
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is frozen, as in a process of its own; afterwards the collector is as it was."""
    monkeypatch.setattr(gc_pause, "gc", gc)
    was, frozen = gc.isenabled(), gc.get_freeze_count() > FROZEN_AT_START
    gc.unfreeze()
    gc.enable()
    yield
    gc.unfreeze()
    if frozen:
        gc.freeze()
    (gc.enable if was else gc.disable)()


async def test_it_rests_until_no_more_come() -> None:
    """It is off from the first connection of a bulk until a while after the last, and nothing is left frozen."""
    gc_pause = GcPause()
    gc_pause.one_more()
    assert not gc.isenabled()
    gc_pause.one_more()
    await until(gc.isenabled)
    assert gc.get_freeze_count() <= FROZEN_AT_START


async def test_in_a_child_it_works_at_once() -> None:
    """Whoever is forked in the middle of a bulk, and has no loop, can end it."""
    gc_pause = GcPause()
    gc_pause.one_more()
    gc_pause.end()
    assert gc.isenabled()
    gc_pause.end()


async def test_an_app_that_does_without_keeps_doing_so() -> None:
    """Where the app has switched the collector off, it stays off."""
    gc.disable()
    gc_pause = GcPause()
    gc_pause.one_more()
    gc_pause.end()
    assert not gc.isenabled()


async def test_what_an_app_has_frozen_stays_frozen() -> None:
    """Objects that an app has frozen are not thawed: the collector does not see them any more."""
    kept: list[list[object]] = [[] for _ in range(1000)]
    gc.freeze()
    count = gc.get_freeze_count()
    gc_pause = GcPause()
    gc_pause.one_more()
    gc_pause.end()
    assert count > FROZEN_AT_START
    assert not {id(one) for one in kept} & {id(one) for one in gc.get_objects()}


def test_what_leaves_is_passed_over() -> None:
    """What is there when the leaving begins is not looked at until it is over; then it is again."""
    there: list[object] = []
    with leaving():
        came: list[object] = []
        assert id(there) not in map(id, gc.get_objects())
        assert id(came) in map(id, gc.get_objects())
    assert id(there) in map(id, gc.get_objects())
    assert gc.get_freeze_count() <= FROZEN_AT_START


def test_what_an_app_has_frozen_outlasts_the_leaving() -> None:
    """Where an app has frozen something, no more is frozen, and nothing is thawed."""
    kept: list[object] = []
    gc.freeze()
    assert gc.get_freeze_count() > FROZEN_AT_START
    there: list[object] = []
    with leaving():
        assert id(there) in map(id, gc.get_objects())
    seen = set(map(id, gc.get_objects()))
    assert (id(there) in seen, id(kept) in seen) == (True, False)


async def test_a_drain_is_a_leaving() -> None:
    """While a worker drains, the collector passes over what it had when that began."""
    async with working() as worker:
        client = await idle(worker)
        _, task = worker.drain()
        await until(lambda: gc.get_freeze_count() > FROZEN_AT_START)
        client.close()
        await task
        assert gc.get_freeze_count() <= FROZEN_AT_START
