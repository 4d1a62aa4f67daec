"""Whether a worker leads: what an app waits for and lets go, what the supervisor tells, and the lock between them."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, cast

import pytest

from stillup.core.worker_figures import Leadership
from stillup.errors import PeerError
from stillup.host import leader_lock
from stillup.wire.handoff_messages import Lead
from stillup.worker import app_state
from stillup.worker.app_state import CHILD, Leader, Stillup, be_current, current
from stillup.worker.leadership import LeaderRole
from stillup.worker.supervisor_channel import SupervisorChannel, take_over
from tests.host.lock_keeper import lock_kept
from tests.worker.fake_supervisor import NONCE, Supervisor, supervised


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Ends what a test has begun, the last first."""
    with ExitStack() as stack:
        yield stack


class Channel:
    """What a role needs of a worker's channel."""

    def __init__(self, lock: socket.socket) -> None:
        self._lock = lock
        self.leader_lock = -1

    def give(self) -> None:
        """Have the lock come."""
        self.give_up_lock()
        self.leader_lock = os.dup(self._lock.fileno())

    def give_up_lock(self) -> None:
        if self.leader_lock >= 0:
            os.close(self.leader_lock)
            self.leader_lock = -1


class Worker:
    """A worker's part, without the rest of it."""

    def __init__(self, stack: ExitStack) -> None:
        self.lock = stack.enter_context(closing(leader_lock.make()))
        self.channel = Channel(self.lock)
        stack.callback(self.channel.give_up_lock)
        self.leader = Leader()
        self.news = asyncio.Event()
        self.role = LeaderRole(cast("SupervisorChannel", self.channel), self.leader, self.news)

    def tell(self, term: int) -> None:
        """Have the supervisor tell it to lead."""
        self.channel.give()
        self.role.told(term)

    def is_locked(self) -> bool:
        """Whether this process holds the lock, by another's word."""
        held = f"leader_lock.held_by({self.lock.fileno()}) is not None"
        code = f"import sys; from stillup.host import leader_lock; sys.exit({held})"
        return subprocess.run([sys.executable, "-c", code], pass_fds=[self.lock.fileno()], check=False).returncode == 1


async def turns() -> None:
    """Let the loop do what there is to do."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_who_does_not_want_to(stack: ExitStack) -> None:
    """A worker in which nobody waits lets go as soon as it is told: who waited has gone meanwhile."""
    worker = Worker(stack)
    assert worker.role.said == Leadership()
    worker.tell(3)
    assert worker.role.said == Leadership(let_go=3)
    assert worker.channel.leader_lock == -1


async def test_it_leads_once_it_is_told(stack: ExitStack) -> None:
    """And holds the lock; it lets go at the end of the block, and says so after the lock is free."""
    worker = Worker(stack)

    async def lead() -> None:
        async with worker.leader as leader:
            assert leader is worker.leader
            assert leader.leads
            assert worker.is_locked()
            assert worker.role.said == Leadership(wants=True, leads=True)

    task = asyncio.create_task(lead())
    await turns()
    assert worker.role.said == Leadership(wants=True)
    assert worker.news.is_set()
    assert not worker.leader.leads
    worker.tell(1)
    await task
    assert worker.role.said == Leadership(let_go=1)
    assert not worker.is_locked()
    assert not worker.role.leads


async def test_several_lead_in_one_worker(stack: ExitStack) -> None:
    """Leading is the worker's: all who wait do, and who comes later; it has let go when the last has."""
    worker = Worker(stack)
    waiting = [asyncio.create_task(worker.leader._enter()) for _ in range(2)]
    await turns()
    worker.tell(1)
    await asyncio.gather(*waiting)
    await worker.leader
    for _ in range(2):
        worker.leader.let_go()
        assert worker.role.said == Leadership(wants=True, leads=True)
    worker.leader.let_go()
    assert worker.role.said == Leadership(let_go=1)
    worker.leader.let_go()
    assert worker.leader.inside == 0, "who lets go once more ends nothing"


async def test_who_has_not_come_to_lead_lets_go_of_nothing(stack: ExitStack) -> None:
    """A block that another task is in is its own, to the end."""
    worker = Worker(stack)
    end = asyncio.Event()

    async def lead() -> None:
        async with worker.leader:
            await end.wait()

    task = asyncio.create_task(lead())
    await turns()
    worker.tell(1)
    worker.leader.let_go()
    await turns()
    worker.leader.let_go()
    assert worker.role.said == Leadership(wants=True, leads=True)
    end.set()
    await task
    assert worker.role.said == Leadership(let_go=1)


async def test_who_gives_up_waiting(stack: ExitStack) -> None:
    """Is forgotten; be it at the instant at which it comes to lead."""
    worker = Worker(stack)
    task = asyncio.create_task(worker.leader._enter())
    await turns()
    task.cancel()
    await turns()
    assert worker.role.said == Leadership()
    task = asyncio.create_task(worker.leader._enter())
    await turns()
    worker.tell(1)
    assert worker.leader.inside == 1
    task.cancel()
    await turns()
    assert task.cancelled()
    assert worker.role.said == Leadership(let_go=1)


async def test_a_lock_that_somebody_has(stack: ExitStack) -> None:
    """It leads when that is free, though it was told to before; without a word of it until then."""
    worker = Worker(stack)
    with lock_kept(worker.lock.fileno()):
        task = asyncio.create_task(worker.leader._enter())
        await turns()
        worker.tell(1)
        worker.news.clear()
        for _ in range(3):
            worker.role._look()
        assert worker.role.said == Leadership(wants=True)
        assert not worker.news.is_set(), "it tries again and again, and has nothing to say of that"
        assert worker.role.leads, "it was told to, and has not let go"
    async with asyncio.timeout(20):
        await task
    assert worker.role.said == Leadership(wants=True, leads=True)


async def test_a_lock_that_cannot_be_taken(stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    """It does not lead, and the log says why."""
    worker = Worker(stack)
    task = asyncio.create_task(worker.leader._enter())
    await turns()
    worker.channel.leader_lock = worker.lock.fileno() + 500
    worker.role.told(1)
    assert "the leader's lock cannot be taken: Bad file descriptor" in caplog.text
    assert not worker.leader.leads
    worker.channel.leader_lock = -1
    task.cancel()
    await turns()


async def test_one_that_drains_lets_go(stack: ExitStack) -> None:
    """It is told, and leads on until it has let go; and never again."""
    worker = Worker(stack)
    task = asyncio.create_task(worker.leader._enter())
    await turns()
    worker.tell(1)
    leader = await task
    told = asyncio.create_task(leader.ends._wait())
    await turns()
    assert not told.done()
    leader.retire()
    await told
    assert not leader.leads
    assert worker.role.said == Leadership(leads=True)
    assert worker.is_locked()
    late = asyncio.create_task(leader._enter())
    await turns()
    leader.let_go()
    assert worker.role.said == Leadership(let_go=1)
    worker.tell(2)
    await turns()
    assert worker.role.said == Leadership(let_go=2), "who is told too late lets go at once"
    assert not late.done()
    late.cancel()
    await turns()


async def test_it_is_told_once_more(stack: ExitStack) -> None:
    """With the lock of another supervisor: that one is held from there on, and the app hears nothing of it."""
    worker = Worker(stack)
    task = asyncio.create_task(worker.leader._enter())
    await turns()
    worker.tell(1)
    leader = await task
    with closing(leader_lock.make()) as other:
        worker.lock = other
        worker.channel.give_up_lock()
        worker.channel.leader_lock = os.dup(other.fileno())
        worker.role.told(1)
        assert leader.leads
        assert worker.is_locked()
        assert worker.role.said == Leadership(wants=True, leads=True)
        leader.let_go()
        assert worker.role.said == Leadership(let_go=1)


async def test_it_is_told_once_more_what_it_has_let_go(stack: ExitStack) -> None:
    """By a supervisor whose record has not heard of that: it says so again, and does not lead, though it waits to."""
    worker = Worker(stack)
    task = asyncio.create_task(worker.leader._enter())
    await turns()
    worker.tell(7)
    (await task).let_go()
    task = asyncio.create_task(worker.leader._enter())
    await turns()
    worker.news.clear()
    worker.tell(7)
    assert not worker.leader.leads
    assert not worker.is_locked()
    assert worker.role.said == Leadership(wants=True, let_go=7)
    assert worker.news.is_set()
    worker.tell(8)
    await task
    worker.leader.let_go()


async def test_one_that_is_turned_away_lets_go(stack: ExitStack) -> None:
    """A supervisor that does not know it has another lead; it may be told again when it is known."""
    worker = Worker(stack)
    worker.role.turned_away()
    assert not worker.leader.ends
    task = asyncio.create_task(worker.leader._enter())
    await turns()
    worker.tell(1)
    leader = await task
    ends = leader.ends
    worker.role.turned_away()
    assert ends
    leader.let_go()
    task = asyncio.create_task(worker.leader._enter())
    await turns()
    assert worker.role.said == Leadership(wants=True, let_go=1)
    worker.tell(2)
    await task
    assert leader.leads
    leader.let_go()


async def test_a_child_does_not_lead(stack: ExitStack) -> None:
    """What an app forks knows that it does not, and can't wait for it."""
    worker = Worker(stack)
    task = asyncio.create_task(worker.leader._enter())
    await turns()
    worker.tell(1)
    leader = await task
    leader.forked()
    assert not leader.leads
    with pytest.raises(RuntimeError, match="was started by a worker"):
        await leader


# The lock on its way


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_lock_comes_with_the_order(path: str, count: int) -> None:
    """One descriptor, which no child of the app's keeps; another number breaks the protocol, and is closed."""

    def script(supervisor: Supervisor) -> None:
        supervisor.offer([])
        supervisor.batch(supervisor.queue.reader, supervisor.queue.writer)
        supervisor.hear()
        with closing(leader_lock.make()) as lock:
            for _ in range(2 if count == 1 else 1):
                supervisor.say(Lead(7), *[lock.fileno()] * count)
            supervisor.hear()

    with supervised(path, script):
        ours = take_over(path, NONCE)
        if count == 1:
            assert asyncio.run(hear_twice(ours)) == [Lead(7), Lead(7)]
            assert ours.leader_lock in ours.descriptors()
            assert not os.get_inheritable(ours.leader_lock)
        else:
            with pytest.raises(PeerError, match=f"expected a lock, got {count} descriptor"):
                asyncio.run(hear_twice(ours))
        ours.close()
        assert ours.leader_lock == -1
        for fd in (ours.stdout, ours.stderr):
            os.close(fd)


async def hear_twice(ours: SupervisorChannel) -> list[Any]:
    return [await ours.hear(), await ours.hear()]


# What a process is


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is nothing yet."""
    monkeypatch.setattr(app_state, "_here", [])
    monkeypatch.delenv("STILLUP_HANDOFF", raising=False)


@pytest.mark.usefixtures("nobody")
def test_a_worker_is_current() -> None:
    stillup = be_current(Stillup(3, 1))
    assert current() is stillup
    assert stillup == {"generation": 3, "worker": 1, "draining": False, "leader": False}


@pytest.mark.usefixtures("nobody")
async def test_without_stillup() -> None:
    """An app does what it would do without: it leads at once, as often as it likes, and never drains."""
    assert (current().generation, current().worker, bool(current().draining)) == (0, 0, False)
    assert current() is current()
    for _ in range(2):
        async with current().leader as leader:
            assert leader.leads
            assert not leader.ends
    assert (await current().leader).leads


@pytest.mark.usefixtures("nobody")
def test_without_stillup_in_one_loop_after_the_other() -> None:
    """As in a test suite with a loop a test: in each the app can wait for what never comes."""

    async def wait() -> None:
        async with current().leader as leader:
            for told in (leader.ends, current().draining):
                waiting = asyncio.ensure_future(told._wait())
                await turns()
                assert not waiting.done()
                waiting.cancel()

    for _ in range(2):
        asyncio.run(wait())


@pytest.mark.usefixtures("nobody")
async def test_what_a_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that a worker has started is none, and would be a second leader: it can't be one."""
    monkeypatch.setenv("STILLUP_HANDOFF", "/run/stillup/shop/handoff.sock")
    assert not current().leader.leads
    with pytest.raises(RuntimeError, match="can't lead") as raised:
        await current().leader
    assert str(raised.value) == CHILD


async def test_it_is_shown_to_who_cannot_ask(stack: ExitStack) -> None:
    """In the state of a request, as it is dumped."""
    stillup = Stillup(3, 1)
    stillup.leader.begin()
    assert stillup["leader"]
    stillup.leader.end()
    assert not stillup["leader"]
