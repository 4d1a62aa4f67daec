"""Connections on their way from one worker to another: who has them is the same to their clients."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from stillup.wire.crossing_view import CrossingView
from tests.system.client_group import ClientGroup, frozen, until_waiting, worker_pids
from tests.system.clients import Peer
from tests.system.gated_service import PATIENT, Start, gone, reload, reloaded
from tests.system.harness import DEADLINE, Service, eventually, lines
from tests.system.mutations import ADMITS_FOR_60_S, DIES_ADMITTING

pytestmark = pytest.mark.xdist_group("moves")


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for all that need no options of their own."""
    with Service(tmp_path_factory.mktemp("gated"), *PATIENT, workers=2) as service:
        yield service


@pytest.fixture
def service(gated: Service) -> Service:
    """The service at rest, with two workers of one generation."""
    gated.client.scale(2, wait=True)
    eventually(lambda: len(gated.generations()) == 1 and len(gated.family()) == 2, "two workers")
    return gated


def test_the_figures_add_up(service: Service, stack: ExitStack) -> None:
    """After two reloads with 20 connections 40 were given, as many adopted; none is in the queue, lost or closed.

    Or more: an old worker that has not heard of the cut-over yet may adopt what its fellow gives, and gives it on.
    `stillup status` says so, too.
    """
    clients = ClientGroup(service, stack, 20)
    for _ in range(2):
        reloaded(service)
        assert not clients.turn()

    def shown() -> CrossingView | None:
        """What the API and the command say, once it is the same: the longest pause is told by a later report."""
        crossing = _complete(service.status().crossing, 40)
        if crossing is None or not crossing.longest:
            return None
        (line,) = lines(service.cli("status").stdout, "given")
        longest = f"longest pause {crossing.longest * 1000:.0f} ms"
        room = f"0 waiting (room for {crossing.capacity})"
        figures = (f"{crossing.given} given", f"{crossing.adopted} adopted", room, "0 lost", "0 closed", longest)
        return crossing if all(figure in line for figure in figures) else None

    crossing = eventually(shown, "the figures of the last are in, and shown")
    assert crossing.waiting == 0
    assert (crossing.lost, crossing.closed) == (0, 0)
    assert crossing.capacity >= 256
    assert 0 < crossing.longest < DEADLINE  # what the machine may stand still is in it


def _complete(crossing: CrossingView, adopted: int) -> CrossingView | None:
    return crossing if crossing.given == crossing.adopted >= adopted else None


def test_status_says_what_an_old_worker_waits_for(service: Service, stack: ExitStack) -> None:
    """`stillup status` shows of each draining worker how many connections of which class it has, and since when."""
    clients = ClientGroup(service, stack, 6)
    clients.begin("status")
    stack.callback((service.folder / "status").touch)
    old = worker_pids(service)
    reload(service)

    def shown() -> bool:
        text = service.cli("status").stdout
        return all(any(lines(text, name, "draining", "3 in-progress for")) for name in old)

    eventually(shown, "the text says what they wait for, and for how long")
    clients.end("status")


def test_clients_that_leave_while_in_the_queue_cost_nobody_anything(service: Service, stack: ExitStack) -> None:
    """Those who close or reset a connection that is in the queue are dropped by who adopts it; the others go on."""
    clients = ClientGroup(service, stack, 60)
    clients.begin("leave")
    reload(service)
    with frozen(list(worker_pids(service).values())):
        clients.end("leave")
        until_waiting(service, 60)
        clients.ask()
        for number in range(40):
            peer = clients.peers.pop()
            if number % 2:
                peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.sock.close()
    assert not clients.hear()
    eventually(lambda: sum(w.connections for w in service.workers()) == 20, "the rest is gone")
    assert not clients.turn()
    assert service.status().crossing.lost == 0


def test_a_process_that_the_app_forked_keeps_no_connection(service: Service, stack: ExitStack) -> None:
    """A child of the app that lives on has no copy of a connection: when the server closes it, its client sees that."""
    stays, moves, forks = (stack.enter_context(Peer(service.address())) for _ in range(3))
    (generation,) = service.generations()
    for peer in (stays, moves):
        peer.get()
    child = int(forks.get("/fork?gate=fork").body)
    stack.callback((service.folder / "fork").touch)
    eventually((service.folder / "fork.reached").exists, "the child lives")
    assert stays.get("/", "Connection: close").generation == generation
    assert stays.ends()
    reloaded(service)
    assert moves.get("/", "Connection: close").generation == generation + 1
    assert moves.ends()
    assert psutil.pid_exists(child)
    (service.folder / "fork").touch()
    eventually(lambda: not psutil.pid_exists(child), "the child has ended")


def test_scaling_down_moves_the_connections(service: Service, stack: ExitStack) -> None:
    """TTOU retires a worker; those whom it had go on with the one that stays."""
    clients = ClientGroup(service, stack, 40)
    stays = min(worker_pids(service).items())[1]
    service.signal(signal.SIGTTOU)
    eventually(lambda: len(service.family()) == 1, "one worker")
    assert not clients.turn()
    assert set(clients.where.values()) == {stays}


def test_a_worker_that_is_terminated_is_replaced_first(service: Service, stack: ExitStack) -> None:
    """SIGTERM to a worker brings another in its place, and only then it leaves: its connections have where to go."""
    service.client.scale(1, wait=True)
    eventually(lambda: len(service.family()) == 1, "one worker")
    clients = ClientGroup(service, stack, 40)
    (victim,) = worker_pids(service).values()
    os.kill(victim, signal.SIGTERM)

    def gone() -> bool:
        assert service.workers(), "at no time is nobody there to serve"
        assert not clients.turn()
        return victim not in {process.pid for process in service.family()}

    eventually(gone, "it has left")
    assert not clients.turn()
    assert set(clients.where.values()) == set(worker_pids(service).values())
    assert victim not in clients.where.values()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_app_sees_the_same_client(tmp_path: Path, stack: ExitStack, loop: str) -> None:
    """A connection's address is the same after it moved, and so is whether its X-Forwarded-For is trusted."""
    binds = ["127.0.0.1:0", f"unix:{tmp_path}/app.sock"]
    service = stack.enter_context(Service(tmp_path, *PATIENT, "--loop", loop, binds=binds))
    tcp, unix = (stack.enter_context(Peer(service.address(index))) for index in range(2))
    host, port = tcp.sock.getsockname()
    for generation in (1, 2):
        direct, proxied = tcp.get("/client"), unix.get("/client", "X-Forwarded-For: 192.0.2.7")
        assert direct.body.endswith(f" {(host, port)}")
        assert proxied.body.endswith(" ('192.0.2.7', 0)")
        assert (direct.generation, proxied.generation) == (generation, generation)
        if generation == 1:
            reload(service)
            gone(service)


def test_a_generation_that_is_aborted_gives_back_what_it_took(start: Start, stack: ExitStack) -> None:
    """A worker has accepted and adopted; another dies before the cut-over: all go on with those who serve."""
    service = start("--drain-timeout", "60", changes=[DIES_ADMITTING, ADMITS_FOR_60_S])
    clients = ClientGroup(service, stack, 40)
    clients.begin("g")
    reload(service)
    serving = worker_pids(service)
    with frozen(list(serving.values())):
        service.client.reload()
        eventually(lambda: "3.1" in worker_pids(service), "3.1 accepts")
        adopter = worker_pids(service)["3.1"]
        fresh = ClientGroup(service, stack, 10, at=[adopter])
        clients.end("g")
        gone(service)
        assert not clients.turn()
        assert {*clients.where.values(), *fresh.where.values()} == {adopter}
        (service.folder / "die").touch()
        assert service.settled(2 + 1).outcome == "aborted"
        clients.ask()
    assert not clients.hear()
    gone(service, 3)
    for held in (clients, fresh):
        assert not held.turn()
        assert set(held.where.values()) <= set(serving.values())
    assert worker_pids(service) == serving


def test_recycling_closes_no_connection(start: Start, stack: ExitStack) -> None:
    """Four workers that are replaced after --limit-max-requests, under keep-alive load, fail and close nothing."""
    service = start("--limit-max-requests", "100")
    clients = ClientGroup(service, stack, 20)
    seen: set[int] = set()

    def replaced() -> bool:
        assert not clients.turn()
        seen.update(clients.where.values())
        return len(seen) >= 2 + 4

    eventually(replaced, "four workers were replaced", deadline=60)
    crossing = service.status().crossing
    assert (crossing.lost, crossing.closed) == (0, 0)
