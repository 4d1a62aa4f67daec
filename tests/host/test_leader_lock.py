"""The leader's lock, between real processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from stillup.host import leader_lock
from tests.host.lock_keeper import lock_kept


@pytest.fixture
def fd() -> Iterator[int]:
    """A lock."""
    with closing(leader_lock.make()) as lock:
        assert not os.get_inheritable(lock.fileno())
        yield lock.fileno()


def test_one_holds_it(fd: int) -> None:
    """Nobody else can take it as long as that lives, and who it is the kernel says."""
    assert leader_lock.held_by(fd) is None
    with lock_kept(fd) as keeper:
        assert leader_lock.held_by(fd) == keeper.pid
        assert not leader_lock.take(fd)
        keeper.kill()
    assert leader_lock.held_by(fd) is None
    assert leader_lock.take(fd)
    assert leader_lock.take(fd), "it is ours already"


def test_a_child_does_not_hold_it(fd: int) -> None:
    """One that a leader has forked lives on with all its descriptors; the lock is free when the leader has ended."""
    with lock_kept(fd, forks=True) as keeper:
        assert leader_lock.held_by(fd) == keeper.pid
        keeper.kill()
        keeper.wait(20)
        assert leader_lock.take(fd), "though the child has a copy"


def test_it_ends_with_the_descriptor(fd: int) -> None:
    """Whoever closes a copy of it in the same process gives it up; so there is one."""
    copy = os.dup(fd)
    assert leader_lock.take(fd)
    os.close(copy)
    with lock_kept(fd):
        assert not leader_lock.take(fd)


def test_nobody_can_open_it(fd: int) -> None:
    """It has no name, and the link in /proc, by which a file's owner could, leads to none."""
    with lock_kept(fd) as keeper, pytest.raises(OSError, match="No such device or address"):
        os.open(f"/proc/{keeper.pid}/fd/{fd}", os.O_RDWR)


def test_what_is_no_lock() -> None:
    """A descriptor that is not open is an error, not a lock that somebody has."""
    lock = leader_lock.make()
    fd = lock.fileno()
    lock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        leader_lock.take(fd)
