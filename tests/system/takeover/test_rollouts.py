"""A supervisor that is killed in the middle of a rollout: the next one ends what was begun."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

from tests.system.clients import Peer
from tests.system.harness import eventually, lines
from tests.system.killable_service import Start
from tests.system.steady_load import Traffic


def test_killed_while_the_new_ones_boot(tmp_path: Path, start: Start) -> None:
    """The rollout is aborted, for that reason; the old generation is the same, and the next reload works."""
    service = start(workers=1)
    pids = service.pids()
    with Traffic(service.address()) as traffic:
        (tmp_path / "hold-2.1").touch()
        rollout = service.client.reload()
        eventually((tmp_path / "held-2.1").exists, "the new one boots")
        service.die()
        service.start()
        assert service.settled(rollout.id).reason == "supervisor-lost"
        assert service.pids() == pids
        traffic.goes_on()
        (tmp_path / "hold-2.1").unlink()
        service.client.reload(wait="cut-over")
        traffic.moves_to(service.rolled_out(3))
    eventually(lambda: len(service.processes()) == 1, "nobody else is left")


def test_killed_while_the_first_ones_boot(tmp_path: Path, start: Start) -> None:
    """Killed before anything served, with a worker that hangs in its import: the next start does not wait for it."""
    (tmp_path / "hold-1.1").touch()
    service = start(workers=1, wait=False)
    eventually((tmp_path / "held-1.1").exists, "the first one boots")
    service.die()
    service.start_without_waiting()
    eventually(lambda: len(list(lines(service.log(), "gen 1 boots"))) == 2, "it boots anew")  # not after its 60 s
    (tmp_path / "hold-1.1").unlink()
    service.until_serving()
    assert service.get()
    eventually(lambda: len(service.processes()) == 1, "nobody else is left")


def test_killed_in_the_cut_over(tmp_path: Path, start: Start) -> None:
    """A generation that was told to accept, and does, serves; the rollout goes on, and the old ones drain."""
    service = start()
    with Traffic(service.address()) as traffic:
        (tmp_path / "hold-2.1").touch()
        rollout = service.client.reload()
        new = eventually(lambda: {w.id: w.pid for w in service.workers("ready")}, "2.2 is READY")
        frozen = new["2.2"]
        assert frozen is not None
        os.kill(frozen, signal.SIGSTOP)
        try:
            (tmp_path / "hold-2.1").unlink()
            eventually(lambda: service.client.rollout(rollout.id).state == "cutting-over", "they are told to accept")
            traffic.goes_on()
            service.die()
        finally:
            os.kill(frozen, signal.SIGCONT)
        service.start()
        pids = service.rolled_out(2)
        assert frozen in pids
        assert service.client.rollout(rollout.id).outcome == "succeeded"
        traffic.moves_to(pids)


def test_killed_while_the_old_ones_drain(tmp_path: Path, start: Start) -> None:
    """The old ones go on draining and leave; what they held is answered, and moves; the rollout is done."""
    service = start()
    with Traffic(service.address()) as traffic, ExitStack() as stack:
        peers = [stack.enter_context(Peer(service.address())) for _ in range(6)]
        for number, peer in enumerate(peers):
            peer.send(b"GET /wait?gate=g%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
        eventually(lambda: all((tmp_path / f"g{n}.reached").exists() for n in range(6)), "they are in progress")
        rollout = service.client.reload()
        assert service.settled(rollout.id).outcome == "succeeded"

        def drain() -> bool:
            return sum(w.classes.get("in-progress", 0) for w in service.workers("draining")) == 6

        eventually(drain, "the old ones know that they drain")
        service.die()
        for number in (0, 1, 2):
            (tmp_path / f"g{number}").touch()
        for peer in peers[:3]:
            assert peer.answer().generation == 1
            assert peer.get().generation == 2
        service.start()
        for number in (3, 4, 5):
            (tmp_path / f"g{number}").touch()
        for peer in peers[3:]:
            assert peer.answer().generation == 1
            assert peer.get().generation == 2
        traffic.moves_to(service.rolled_out(2))
        eventually(lambda: service.client.rollout(rollout.id).state == "done", "it is done")
