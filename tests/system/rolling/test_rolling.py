"""Rolling reloads under a load of every kind, whatever comes in their way, at every step.

Nobody loses anything but what a killed worker held, and at every instant of it all the kernel finds no more workers
alive than N + max-surge, and no fewer that accept than N - max-unavailable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest

from benchmarks.processes import hold
from stillup.client import ProblemError
from tests.system.client_group import frozen
from tests.system.clients import Peer, request
from tests.system.harness import FULL, eventually
from tests.system.rolling.rolling_service import Roll, RollingService, under_load

STEPS = (0, 1, 2, 3) if FULL else (1,)
"""New workers that serve when something comes in the way; of those, the ones that a service comes to."""


@pytest.fixture(params=STEPS)
def step(request: pytest.FixtureRequest, service: RollingService) -> int:
    if request.param >= service.bounds.workers:
        pytest.skip(f"{service.bounds.workers} workers have no such step before the cut-over")
    return int(request.param)


@pytest.fixture
def early(service: RollingService, step: int) -> int:
    """A step at which an old worker serves still."""
    if step >= service.bounds.least:
        pytest.skip("none of the old ones is left at that step")
    return step


@pytest.fixture
def few(service: RollingService) -> None:
    """For what is tried with every service by PROVE=full, and else with the one that has fewer workers."""
    if not FULL and service.bounds.surge:
        pytest.skip("tried with fewer workers; prove-repeats has all of them")


def has_begun_to_shift(service: RollingService, step: int) -> bool:
    """Whether a client may have noticed the rollout by that step: then there is a way back."""
    return step > 0 or service.bounds.unavailable > 0


def play(service: RollingService, act: Callable[[Roll], Coroutine[Any, Any, None]], **allowed: int) -> None:
    """Do that under load."""

    async def run() -> None:
        async with under_load(service, **allowed) as roll:
            await act(roll)

    asyncio.run(run())


def test_a_reload(service: RollingService) -> None:
    """Each step is told, in order; each kept connection is at the new generation in the end."""

    async def act(roll: Roll) -> None:
        await roll.reload()
        await roll.settled(outcome="succeeded")
        await roll.stays(roll.new)
        steps = service.told(roll.since, "rollout.step", generation=roll.new)
        assert {step["of"] for step in steps} == {roll.size}
        came, went = [step["new"] for step in steps], [step["old"] for step in steps]
        assert (came, went) == (sorted(came), sorted(went, reverse=True))
        assert all(step["old"] + step["new"] >= service.bounds.least for step in steps)

    play(service, act)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("how", "reason"), [("broken", "import"), ("sick", "probe")])
def test_a_release_that_fails_at_a_step(service: RollingService, step: int, how: str, reason: str) -> None:
    """It goes back, and the old generation serves as before; what of the new has served leaves without a loss."""

    async def act(roll: Roll) -> None:
        roll.mark(how, step + 1)
        await roll.reload()
        await roll.settled(outcome="aborted", reason=reason)
        if has_begun_to_shift(service, step):
            await roll.event("rollout.went-back", generation=roll.new)
        await roll.stays(roll.old)

    play(service, act)


@pytest.mark.usefixtures("few")
def test_an_abort_at_a_step(service: RollingService, step: int) -> None:
    """As one that fails."""

    async def act(roll: Roll) -> None:
        await roll.reload_to(step)
        aborted = await asyncio.to_thread(service.client.abort)
        assert (aborted.id, aborted.outcome, aborted.reason) == (roll.number, "aborted", "called-off")
        roll.go_on()
        await roll.stays(roll.old)

    play(service, act)


@pytest.mark.usefixtures("few")
def test_an_abort_on_the_way_back_is_refused(service: RollingService) -> None:
    """There is no other way; and a reload that comes then waits, and is done."""

    async def act(roll: Roll) -> None:
        await roll.reload_to(1)
        roll.mark("hold", *range(1, roll.size + 1), generation=roll.old)
        await asyncio.to_thread(service.client.abort)
        first = roll.number
        with pytest.raises(ProblemError) as refused:
            await asyncio.to_thread(service.client.abort)
        assert refused.value.code == "out-of-order"
        await roll.reload()
        assert (await asyncio.to_thread(service.client.rollout, first)).state == "going-back"
        assert (await asyncio.to_thread(service.client.rollout, roll.number)).state == "waiting"
        roll.go_on()
        await roll.settled(outcome="succeeded")
        await roll.stays(roll.new + 1)

    play(service, act)


@pytest.mark.parametrize("more", [1, -1], ids=["up", "down"])
def test_a_scaling_at_a_step(service: RollingService, step: int, more: int) -> None:
    """The plan follows: as many serve in the end as were wanted last. While all of the new boot it is refused."""
    bounds = service.bounds
    size = bounds.workers + more
    if bounds.surge == 0 and bounds.unavailable >= size:
        pytest.skip("with so few workers there is no plan")

    async def act(roll: Roll) -> None:
        await roll.reload_to(step)
        if has_begun_to_shift(service, step):
            await asyncio.to_thread(service.client.scale, size)
        else:
            with pytest.raises(ProblemError, match="before its cut-over"):
                await asyncio.to_thread(service.client.scale, size)
        roll.go_on()
        await roll.settled(outcome="succeeded")
        await roll.stays(roll.new, size if has_begun_to_shift(service, step) else bounds.workers)
        await asyncio.to_thread(lambda: service.client.scale(bounds.workers, wait="drained"))

    most, least = bounds.most + max(0, more), max(1, bounds.least + min(0, more))
    play(service, act, most=most, least=least)


@pytest.mark.usefixtures("few")
def test_another_reload_at_a_step(service: RollingService, step: int) -> None:
    """It supersedes the first, which goes back before it begins."""

    async def act(roll: Roll) -> None:
        await roll.reload_to(step)
        first = roll.number
        await roll.reload()
        roll.go_on()
        superseded = await asyncio.to_thread(service.settled, first)
        assert (superseded.outcome, superseded.reason) == ("aborted", "superseded")
        await roll.settled(outcome="succeeded")
        await roll.stays(roll.new + 1)

    play(service, act)


@pytest.mark.usefixtures("few")
def test_the_supervisor_is_killed_at_a_step(service: RollingService, step: int) -> None:
    """The next one goes on from what lives; a rollout that nobody had noticed is off, as any that boots."""

    async def act(roll: Roll) -> None:
        await roll.reload_to(step)
        await roll.die()
        if has_begun_to_shift(service, step):
            await roll.settled(outcome="succeeded")
            await roll.stays(roll.new)
        else:
            await roll.settled(outcome="aborted", reason="supervisor-lost")
            await roll.stays(roll.old)

    play(service, act)


@pytest.mark.usefixtures("few")
def test_the_supervisor_is_killed_on_the_way_back(service: RollingService) -> None:
    """The next one goes back all the way."""

    async def act(roll: Roll) -> None:
        await roll.reload_to(1)
        roll.mark("hold", *range(1, roll.size + 1), generation=roll.old)
        await asyncio.to_thread(service.client.abort)
        await roll.die()
        await roll.settled(outcome="aborted", reason="called-off")
        await roll.stays(roll.old)

    play(service, act)


@pytest.mark.usefixtures("few")
def test_a_program_is_not_replaced_while_a_worker_starts(service: RollingService, step: int) -> None:
    """It would not know the worker. Who asks is refused, and the rollout goes on."""

    async def act(roll: Roll) -> None:
        await roll.reload_to(step)
        with pytest.raises(ProblemError) as refused:
            await asyncio.to_thread(service.client.reexec)
        begun = has_begun_to_shift(service, step)
        assert refused.value.code == ("out-of-order" if begun else "rollout-in-progress")
        roll.go_on()
        await roll.settled(outcome="succeeded")
        await roll.stays(roll.new)

    play(service, act)


@pytest.mark.usefixtures("few")
def test_the_supervisor_replaces_its_program_between_two_steps(service: RollingService) -> None:
    """Not while a worker starts, as at any other time, but while old ones drain. It goes on, then."""

    async def act(roll: Roll) -> None:
        with half_uploads(service) as uploads:
            await roll.reload()
            await roll.event("rollout.step", generation=roll.new)
            await replace_program(service)
            assert (await asyncio.to_thread(service.client.rollout, roll.number)).state == "shifting"
            end(uploads)
        await roll.settled(outcome="succeeded")
        await roll.stays(roll.new)

    play(service, act)


def test_the_supervisor_replaces_its_program_on_the_way_back(service: RollingService) -> None:
    """While a worker of the new generation drains, and the place is not free yet."""
    if service.bounds.surge:
        pytest.skip("with a surge the old ones come back beside those that drain")

    async def act(roll: Roll) -> None:
        await roll.reload_to(1)
        with half_uploads(service) as uploads:
            await asyncio.to_thread(service.client.abort)
            roll.go_on()
            await replace_program(service)
            assert (await asyncio.to_thread(service.client.rollout, roll.number)).state == "going-back"
            end(uploads)
        await roll.settled(outcome="aborted", reason="called-off")
        await roll.stays(roll.old)

    play(service, act)


async def replace_program(service: RollingService) -> None:
    """Have the supervisor replace its program as soon as no worker is being started, and wait until it is there."""

    def asked() -> bool:
        try:
            service.client.reexec()
        except ProblemError as refused:
            if refused.code != "out-of-order":
                raise
            return False
        return True

    await asyncio.to_thread(eventually, asked, "no worker is being started")
    await asyncio.to_thread(service.until_serving)


@contextmanager
def half_uploads(service: RollingService) -> Iterator[list[Peer]]:
    """Requests of which half the body is there, one at each worker: who is to leave waits for the other half."""
    pids = [worker.pid for worker in service.workers() if worker.pid is not None]
    with ExitStack() as stack:
        uploads = []
        for pid in pids:
            with frozen([other for other in pids if other != pid]):
                upload = stack.enter_context(Peer(service.address()))
                upload.send(request("/upload", "Content-Length: 4", method="POST") + b"ab")
                eventually(partial(is_held, upload, pid), "it is at that worker")
                uploads.append(upload)
        yield uploads


def is_held(upload: Peer, pid: int) -> bool:
    with hold(pid) as grip:
        return upload.sock.getsockname()[1] in grip.holds()


def end(uploads: list[Peer]) -> None:
    """Send the rest, and be answered."""
    for upload in uploads:
        upload.send(b"cd")
        answer = upload.answer()
        assert (answer.status, answer.body) == (200, '{"bytes": 4}')


@pytest.mark.usefixtures("few")
def test_a_new_worker_is_killed_at_a_step(service: RollingService, step: int) -> None:
    """Before its cut-over, the last that serves, or the first in its boot. The rollout goes back.

    It is the release's first death, and there is a release that has none.
    """

    async def act(roll: Roll) -> None:
        await roll.reload_to(step)
        await roll.kill(roll.new, max(1, step))
        await roll.settled(outcome="aborted", reason="exit")
        roll.go_on()
        await roll.stays(roll.old)

    play(service, act)


def test_an_old_worker_is_killed_at_a_step(service: RollingService, early: int) -> None:
    """The rollout goes on; nothing else leaves until the bound holds again."""

    async def act(roll: Roll) -> None:
        await roll.reload_to(early)
        (left, *_) = sorted(worker.id for worker in service.workers() if worker.id.startswith(f"{roll.old}."))
        await roll.kill(roll.old, int(left.partition(".")[2]))
        roll.go_on()
        await roll.settled(outcome="succeeded")
        await roll.stays(roll.new)

    play(service, act)
