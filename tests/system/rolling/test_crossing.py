"""How often a connection moves while workers are replaced some at a time."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.system import mutations
from tests.system.client_group import ClientGroup
from tests.system.gated_service import GATED, reload
from tests.system.harness import Service, eventually, pids
from tests.system.mutations import mutated

CLIENTS = 12
WORKERS = 3
"""Slot 3 is the first to leave."""
ENOUGH = 20
"""Reloads within which a broken copy is found out; most often in the first ones."""


class RolledClients:
    """Idle clients of a service that rolls, at first a third of them at each of its three workers."""

    def __init__(self, folder: Path, stack: ExitStack, path: str = "") -> None:
        environment = {"PYTHONPATH": path} if path else {}
        options = (*GATED, "--timeout-keep-alive", "60", "--strategy", "rolling")
        self.service = stack.enter_context(Service(folder, *options, workers=WORKERS, environment=environment))
        self.clients = ClientGroup(self.service, stack, CLIENTS)
        self.given = 0
        """Connections that were given away so far."""

    def reload(self) -> tuple[int, int]:
        """How often they moved in a reload, all together; and how many were at the first worker to leave."""
        service, clients = self.service, self.clients
        first = len(clients.held_by(pids(service)[f"{service.generations()[0]}.{WORKERS}"]))
        reload(service)
        eventually(lambda: len(service.generations()) == 1, "the old ones leave")
        assert not clients.turn(), "one was closed"
        assert set(clients.where.values()) <= set(pids(service).values())
        before, self.given = self.given, service.status().crossing.given
        return self.given - before, first


def test_each_connection_moves_once(tmp_path: Path, stack: ExitStack) -> None:
    """Not once for each worker that leaves: only the new ones read the queue, as soon as one of them serves.

    What the first one gives away when it is told to leave may come to another that is being told not to read any more.
    """
    rolled = RolledClients(tmp_path, stack)
    moved, first = rolled.reload()
    assert CLIENTS <= moved <= CLIENTS + first
    eventually(lambda: rolled.service.status().crossing.adopted == moved, "all are said to be adopted")
    crossing = rolled.service.status().crossing
    assert (crossing.lost, crossing.closed) == (0, 0)


def test_this_test_could_see_it(tmp_path: Path, stack: ExitStack) -> None:
    """Were the queue read by whoever serves, more would move more than once, in one of a few reloads."""
    rolled = RolledClients(tmp_path, stack, mutated(tmp_path, mutations.ADOPTS_WHOEVER_SERVES)["PYTHONPATH"])
    for _ in range(ENOUGH):
        moved, first = rolled.reload()
        if moved > CLIENTS + first:
            return
    raise AssertionError(f"not in {ENOUGH} reloads")


def test_all_workers_read_the_queue_again_after_it(tmp_path: Path, stack: ExitStack) -> None:
    """Of the workers that are left when others leave each may have what those give away."""
    rolled = RolledClients(tmp_path, stack)
    rolled.reload()
    for size in (2, 1):
        rolled.service.client.scale(size, wait="drained")
        assert not rolled.clients.turn()
        assert set(rolled.clients.where.values()) <= set(pids(rolled.service).values())
