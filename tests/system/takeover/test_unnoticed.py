"""The supervisor is killed, and another takes its place, perhaps started in another way: no client can tell."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from stillup.client import NotRunningError
from tests.host.tcp_ports import own_port
from tests.system.clients import Peer
from tests.system.gated_service import old_worker_with
from tests.system.harness import eventually, lines
from tests.system.killable_service import HELD, KillableService, Start
from tests.system.steady_load import Traffic


def test_nobody_notices(tmp_path: Path, start: Start, stack: ExitStack) -> None:
    """Killed under load, the supervisor is missed by no client; the next has its listeners, workers and generation.

    Whatever the listeners are: TCP, a socket file, an abstract address, one that was inherited.
    """
    inherited = stack.enter_context(socket.create_server(("127.0.0.1", 0))).fileno()
    binds = ["127.0.0.1:0", f"unix:{tmp_path}/s", f"unix:@{tmp_path}", f"fd:{inherited}"]
    service = start(binds=binds, inherited=[inherited])
    addresses, pids = _addresses(service), service.pids()
    everybody = [Traffic(address, kept=2, fresh=1) for address in addresses]
    with ExitStack() as clients:
        for traffic in everybody:
            clients.enter_context(traffic)
        service.die()
        for traffic in everybody:
            traffic.goes_on(20)
        with pytest.raises(NotRunningError):
            service.status()
        service.start()
        for traffic in everybody:
            traffic.goes_on(20)
        assert (_addresses(service), service.pids(), service.generations()) == (addresses, pids, [1])
        assert service.status().crossing.lost == 0
        service.client.reload(wait="cut-over")
        new = service.rolled_out(2)
        for traffic in everybody:
            traffic.moves_to(new)
    assert not list(lines(service.log(), "died:"))
    assert (tmp_path / "s").exists()
    service.process.terminate()
    service.process.wait(20)
    assert not (tmp_path / "s").exists(), "the socket file is still known to be ours"


def _addresses(service: KillableService) -> list[str]:
    return [listener.address for listener in service.status().listeners]


def test_again_and_again(start: Start) -> None:
    """Supervisors may die one after the other, in the middle of a takeover, too: `make prove-takeover` tries more."""
    service = start()
    pids = service.pids()
    with Traffic(service.address()) as traffic:
        for pause in (0.0, 0.15, 0.3):
            service.die()
            service.start_without_waiting()
            time.sleep(pause)  # not waited for: the moment of death is what is tried
        service.die()
        service.start()
        traffic.goes_on()
        assert service.pids() == pids
        service.client.reload(wait="cut-over")
        traffic.moves_to(service.rolled_out(2))


def test_more_workers_and_a_request_that_takes_longer_than_a_supervisor_lives(tmp_path: Path, start: Start) -> None:
    """Started with another number of workers, it rolls them out beside the old ones.

    A request that began under one supervisor is answered under the next, and its connection moves.
    """
    service = start(workers=1)
    with Traffic(service.address()) as traffic, Peer(service.address()) as peer:
        peer.send(b"GET /wait?gate=g HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually((tmp_path / "g.reached").exists, "it is in progress")
        service.die()
        service.change("--workers", "2")
        service.start()
        eventually(lambda: len(service.workers()) == 2, "two workers serve")
        assert service.generations() == [1, 2]
        old_worker_with(service, "in-progress")
        (tmp_path / "g").touch()
        answer = peer.answer()
        assert (answer.generation, answer.closes) == (1, False)
        assert peer.get().generation == 2
        pids = service.rolled_out(2)
        assert len(pids) == 2
        traffic.moves_to(pids)
    service.logged("another number of workers")


def test_another_app(tmp_path: Path, start: Start) -> None:
    """Started with another app, it rolls that out; one that cannot serve leaves the old one serving."""
    service = start(workers=1)
    pids = service.pids()
    with Traffic(service.address()) as traffic:
        service.die()
        service.argv[2] = "other:app"
        service.start()
        eventually(lambda: list(lines(service.log(), "gen 2 rejected (import)")), "it is rejected")
        assert service.pids() == pids
        traffic.goes_on()
        service.die()
        service.write(HELD, name="other.py")
        service.start()
        traffic.moves_to(service.rolled_out(3))
    service.tracebacks_expected = True


def test_other_binds(tmp_path: Path, start: Start) -> None:
    """Started with other binds, it keeps the sockets that are wanted still, whatever their name, and rolls out."""
    web = f"127.0.0.1:{own_port()}"
    unix = f"unix:{tmp_path}/s"
    service = start("--probation", "0", workers=1, binds=[web])
    with Traffic(web) as traffic:
        for generation, binds in enumerate(
            (
                [f"web={web}"],  # another name
                [web, unix],  # none, and one more
                [f"a={web}", f"b={unix}"],
                [f"a={unix}", f"b={web}"],  # names exchanged
                [web],  # one less
            ),
            start=2,
        ):
            service.die()
            service.argv = service.argv[: service.argv.index("--bind")]
            for bind in binds:
                service.change("--bind", bind)
            service.start()
            traffic.moves_to(service.rolled_out(generation))
            eventually(lambda: len(_addresses(service)) == len(binds), "what was left out is closed")  # noqa: B023
            for address in _addresses(service):
                with Peer(address) as peer:
                    assert peer.get().generation == generation
            is_wanted = any("unix" in bind for bind in binds)
            eventually(lambda: (tmp_path / "s").exists() == is_wanted, f"its file, with {binds}")  # noqa: B023
            eventually(lambda: len(list(lines(service.log(), "other listeners"))) == generation - 1, "why")  # noqa: B023


def test_a_bind_that_cannot_be_had(tmp_path: Path, start: Start) -> None:
    """A bind that somebody else holds ends the next supervisor; the workers go on, and the one after it takes over."""
    service = start(workers=1, binds=[f"unix:{tmp_path}/s"])
    pids = service.pids()
    with Traffic(service.address()) as traffic, socket.create_server(("127.0.0.1", 0)) as other:
        service.die()
        argv = list(service.argv)
        service.change("--bind", f"127.0.0.1:{other.getsockname()[1]}")
        service.start_without_waiting()
        assert service.process.wait(20) == 1
        assert "address already in use" in service.log()
        traffic.goes_on()
        service.argv = argv
        service.start()
        assert service.pids() == pids
        traffic.goes_on()
