"""Workers that are killed while they send or adopt connections: only what they held is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.system.client_group import ClientGroup, frozen, until_waiting, worker_pids
from tests.system.gated_service import PATIENT, Start, gone, reload, reloaded
from tests.system.harness import Service, eventually
from tests.system.mutations import DIES_ADOPTING, DIES_SENDING

pytestmark = pytest.mark.xdist_group("kills")


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for those whose code is as it is."""
    with Service(tmp_path_factory.mktemp("gated"), *PATIENT, workers=2) as service:
        yield service


@pytest.fixture
def service(gated: Service) -> Service:
    """The service at rest."""
    eventually(lambda: len(gated.generations()) == 1 and len(worker_pids(gated)) == 2, "two workers serve")
    return gated


def test_an_old_worker_is_killed_in_its_drain(service: Service, stack: ExitStack) -> None:
    """Only those fail whom it still had: not those who have moved, nor those who are in the queue at that moment."""
    busy, idle = ClientGroup(service, stack, 40), ClientGroup(service, stack, 160)
    (generation,) = service.generations()
    victim = min(worker_pids(service).values())
    # The idle ones get something to do for as long as it takes to freeze the new workers.
    for clients, gate in ((busy, "busy"), (idle, "idle")):
        clients.ask(f"/wait?gate={gate}")
    eventually(lambda: sum(w.classes.get("in-progress", 0) for w in service.workers()) == 200, "all are busy")
    reload(service)
    held = busy.held_by(victim)
    assert len(held) == 20
    with frozen(list(worker_pids(service).values())):
        idle.end("idle")
        until_waiting(service, 160)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: victim not in worker_pids(service, "draining").values(), "it is dead")
        idle.ask()
    assert not idle.hear()
    (service.folder / "busy").touch()
    lost = busy.hear()
    print(f"{len(held)} held by the victim, {len(lost)} of 200 failed")
    assert set(lost) <= set(held)
    gone(service, generation)
    for clients in (idle, busy):
        assert not clients.turn()
        assert set(clients.where.values()) <= set(worker_pids(service).values())


def test_a_new_worker_is_killed_after_it_adopted(service: Service, stack: ExitStack) -> None:
    """Only those fail whom it had adopted; all others are answered, and its slot is filled again."""
    clients = ClientGroup(service, stack, 200)
    reloaded(service)
    clients.join(ClientGroup(service, stack, 20))
    assert not clients.turn()
    victim = min(worker_pids(service).values())
    held = clients.held_by(victim)
    os.kill(victim, signal.SIGKILL)
    lost = clients.turn()
    print(f"{len(held)} held by the victim, {len(lost)} of 220 failed")
    assert set(lost) <= set(held)
    _respawned(service, victim)
    assert not clients.turn()


def test_the_queue_waits_for_somebody_who_lives(service: Service, stack: ExitStack) -> None:
    """With every adopter dead, those in the queue are served by the workers that are started in their place."""
    clients = ClientGroup(service, stack, 200)
    (generation,) = service.generations()
    clients.begin("queue")
    reload(service)
    new = list(worker_pids(service).values())
    with frozen(new):
        clients.end("queue")
        until_waiting(service, 200)
        gone(service, generation)
        clients.ask()
        for pid in new:
            os.kill(pid, signal.SIGKILL)
    assert not clients.hear()
    assert not set(clients.where.values()) & set(new)


def _respawned(service: Service, victim: int) -> None:
    def look() -> bool:
        pids = worker_pids(service)
        return len(pids) == 2 and victim not in pids.values()

    eventually(look, "two workers serve again")


def test_a_new_worker_is_killed_while_it_adopts(start: Start, stack: ExitStack) -> None:
    """Killed between two packets it takes only those with it that it had; what is in the queue is served by others."""
    service = start(changes=[DIES_ADOPTING])
    clients = ClientGroup(service, stack, 200)
    clients.begin("g")
    reload(service)
    new = worker_pids(service)
    with frozen(list(new.values())) as thaw:
        clients.end("g")
        until_waiting(service, 200)
        gone(service)
        (service.folder / "kill").touch()
        clients.ask()
        thaw(new["2.1"])
        eventually(lambda: new["2.1"] not in worker_pids(service).values(), "it is dead")
        victim, held = map(int, (service.folder / "held").read_text().split())
        assert victim == new["2.1"]
        assert 40 <= held < 100, "nothing would be proven"
    # Some it may have answered before it died; those find out at their next request.
    lost = clients.hear() + clients.turn()
    print(f"{held} held by the victim, {len(lost)} of 200 failed")
    assert 0 < len(lost) <= held
    _respawned(service, victim)
    assert not clients.turn()
    assert service.status().crossing.waiting == 0


def test_an_old_worker_is_killed_while_it_gives(start: Start, stack: ExitStack) -> None:
    """What it has put into the queue a moment before is not lost, though the worker has a copy of it as it dies."""
    service = start(changes=[DIES_SENDING])
    clients = ClientGroup(service, stack, 200)
    old = set(worker_pids(service).values())
    (service.folder / "kill").touch()
    reload(service)
    gone(service)
    victim, given, had = map(int, (service.folder / "given").read_text().split())
    assert victim in old
    # With what it may have adopted: its fellow, which dies no more, may have been told to drain a moment before it.
    held = had - given
    lost = clients.turn()
    print(f"{held} held by the victim, {len(lost)} of 200 failed")
    assert 0 < given < 100
    assert len(lost) <= held, (service.status().crossing, service.log())
    assert not clients.turn()
