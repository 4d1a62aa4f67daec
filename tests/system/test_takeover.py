"""The supervisor is killed, and another takes its place: no client can tell, and no worker is replaced for it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.client.http import NotRunningError
from tests.system.clients import Ended, Peer
from tests.system.harness import ROOT, Service, eventually, lines, mutated
from tests.system.traffic import Traffic

HELD = """
import os, pathlib, time
me = f"{os.environ['STILLUP_GENERATION']}.{os.environ['STILLUP_WORKER']}"
while pathlib.Path(f"hold-{me}").exists():
    pathlib.Path(f"held-{me}").touch()
    time.sleep(0.02)
from tests.system.gated import app
"""
"""The gated app, whose import waits while there is a file such as ``hold-2.1``."""


class Mortal(Service):
    """A service whose supervisor is killed; whoever is left in the end is ended."""

    def __init__(self, folder: Path, *options: str, app: str = "main:app", path: str = "", **others: Any) -> None:
        environment = {"PYTHONPATH": f"{path}:{ROOT}" if path else str(ROOT)}
        options = ("--no-access-log", "--orphan-timeout", "60", *options)
        super().__init__(folder, app, *options, environment=environment, **others)
        self.write(HELD)

    def __exit__(self, *error: object) -> None:
        try:
            super().__exit__(*error)
        finally:
            left = self.processes()
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, 10)
        assert not left, f"left behind: {left}"

    def processes(self) -> list[psutil.Process]:
        """The workers, whoever is their parent."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                # Not by its name alone: another test's folder may be called the same.
                ours = process.environ().get("STILLUP_HANDOFF") == f"{self.runtime}/handoff.sock"
                if ours and "supervisor.worker" in process.cmdline():
                    found.append(process)
        return found

    def pids(self) -> dict[str, int]:
        """Who serves."""
        return {worker.id: worker.pid for worker in self.workers() if worker.pid is not None}

    def die(self) -> None:
        """Let the supervisor die on the spot."""
        self.process.kill()
        self.process.wait()

    def change(self, *options: str) -> None:
        """Start it in another way from now on."""
        self.argv += options

    def rolled_out(self, number: int) -> set[int]:
        """Wait until that generation alone is there; its processes."""
        eventually(lambda: self.generations() == [number] and self.status().state == "serving", f"gen {number} alone")
        return set(self.pids().values())

    def record(self) -> Path:
        return self.runtime / "record.json"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Ends what a test has begun, the last first."""
    with ExitStack() as stack:
        yield stack


Start = Callable[..., Mortal]


@pytest.fixture
def start(tmp_path: Path, stack: ExitStack) -> Start:
    """Starts a service with options of its own."""

    def started(*options: str, workers: int = 2, **others: Any) -> Mortal:
        return stack.enter_context(Mortal(tmp_path, *options, workers=workers, **others))

    return started


# Nobody notices


@pytest.mark.parametrize(
    "bind", ["127.0.0.1:0", "unix:{}/s", "unix:@{}", "fd:{}"], ids=["tcp", "unix", "abstract", "fd"]
)
def test_nobody_notices(tmp_path: Path, start: Start, stack: ExitStack, bind: str) -> None:
    """Killed under load, the supervisor is missed by no client; the next has its listeners, workers and generation."""
    inherited = stack.enter_context(socket.create_server(("127.0.0.1", 0))).fileno() if bind == "fd:{}" else 0
    service = start(binds=[bind.format(inherited or tmp_path)], inherited=[inherited] if inherited else [])
    address, pids = service.address(), service.pids()
    with Traffic(address) as traffic:
        service.die()
        traffic.goes_on()
        with pytest.raises(NotRunningError):
            service.status()
        service.start()
        traffic.goes_on()
        assert (service.address(), service.pids(), service.generations()) == (address, pids, [1])
        assert service.status().crossing.lost == 0
        assert service.reload().returncode == 0
        traffic.moves_to(service.rolled_out(2))
    assert not list(lines(service.log(), "died:"))
    if bind.startswith("unix:/"):
        assert (tmp_path / "s").exists()
        service.process.terminate()
        service.process.wait(20)
        assert not (tmp_path / "s").exists(), "the socket file is still known to be ours"


def test_again_and_again(start: Start) -> None:
    """Supervisors may die one after the other, in the middle of a takeover, too."""
    service = start()
    pids = service.pids()
    with Traffic(service.address()) as traffic:
        for pause in (0.0, 0.1, 0.2, 0.3, 0.4):
            service.die()
            service.start_without_waiting()
            time.sleep(pause)  # not waited for: the moment of death is what is tried
        service.die()
        service.start()
        traffic.goes_on()
        assert service.pids() == pids
        assert service.reload().returncode == 0
        traffic.moves_to(service.rolled_out(2))


def test_a_request_that_takes_longer_than_a_supervisor_lives(tmp_path: Path, start: Start) -> None:
    """A request that began under one supervisor is answered under the next, and its connection moves at a reload."""
    service = start(workers=1)
    with Peer(service.address()) as peer:
        peer.send(b"GET /wait?gate=g HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually((tmp_path / "g.reached").exists, "it is in progress")
        service.die()
        service.start()
        assert service.reload().returncode == 0
        (tmp_path / "g").touch()
        answer = peer.answer()
        assert (answer.generation, answer.closes) == (1, False)
        assert peer.get().generation == 2


# The record


def _cut(text: bytes) -> bytes:
    return text[: len(text) // 2]


def _other_boot(text: bytes) -> bytes:
    return json.dumps({**json.loads(text), "boot": "another"}).encode()


RUINS: dict[str, Callable[[bytes], bytes | None]] = {
    "torn": _cut,
    "of-another-boot": _other_boot,
    "missing": lambda _: None,
}
"""What may have become of a record; tests/wire/test_record.py knows more."""


@pytest.mark.parametrize("ruin", RUINS.values(), ids=RUINS)
def test_without_a_record(start: Start, ruin: Callable[[bytes], bytes | None]) -> None:
    """With a record of no use the living are heard instead, and what was asked for is rolled out beside them."""
    service = start()
    address = service.address()
    with Traffic(address) as traffic:
        service.die()
        text = ruin(service.record().read_bytes())
        service.record().unlink()
        if text is not None:
            service.record().write_bytes(text)
        service.start()
        traffic.moves_to(service.rolled_out(2))
        assert service.address() == address
        assert service.reload().returncode == 0
        traffic.moves_to(service.rolled_out(3))
    assert "no record of what ran here" in service.log()


def test_without_a_record_and_without_a_worker(tmp_path: Path, start: Start) -> None:
    """A slot that nobody claims is filled, from what the others run, until the new generation serves."""
    (tmp_path / "hold-2.1").touch()
    service = start()
    pids = service.pids()
    address = service.address()
    service.die()
    os.kill(pids["1.1"], signal.SIGKILL)
    with Traffic(address) as traffic:
        service.record().unlink()
        service.start()
        eventually(lambda: set(service.pids()) == {"1.1", "1.2"}, "its slot is filled")
        traffic.goes_on()
        (tmp_path / "hold-2.1").unlink()
        traffic.moves_to(service.rolled_out(2))


def test_a_record_that_cannot_be_read(start: Start) -> None:
    """A directory in the record's place is no reason not to serve; commands are refused until it is gone."""
    service = start(workers=1)
    with Traffic(service.address()) as traffic:
        service.die()
        service.record().unlink()
        service.record().mkdir()
        service.start()
        traffic.goes_on()
        refused = service.reload()
        assert (refused.returncode, "cannot be written down" in refused.stdout + refused.stderr) == (1, True)
        service.record().rmdir()
        assert service.reload().returncode == 0


def test_strangers_are_not_taken_for_workers(start: Start) -> None:
    """Without a record a process of the same user that claims another listener is left alone."""
    service = start(workers=1)
    service.die()
    service.record().unlink()
    service.start_without_waiting()
    said = {"type": "Resume", "protocol": 2, "nonce": "x", "draining": False, "listeners": [], "queue": None}
    said["welcome"] = dict.fromkeys(["app", "directory", "app_dir"], "/") | {
        "protocol": 2,
        "worker": 9,
        "generation": 9,
    }
    said["welcome"] |= {"options": {}, "drain_timeout": 1, "boot_timeout": 1}  # type: ignore[operator]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.settimeout(20)

        def connected() -> bool:
            with suppress(OSError):
                stranger.connect(str(service.runtime / "handoff.sock"))
                return True
            return False

        eventually(connected, "the next supervisor listens")
        stranger.send(json.dumps(said).encode())
        assert b"Return" in stranger.recv(4096)
        assert b"Resumed" in stranger.recv(4096)
        service.until_serving()
        assert b"Refusal" in stranger.recv(4096)
    assert "a worker of another service" in service.log()
    service.rolled_out(2)


# Started in another way


def test_more_workers(start: Start) -> None:
    """Started with another number of workers, it rolls them out beside the old ones."""
    service = start(workers=1)
    with Traffic(service.address()) as traffic:
        service.die()
        service.change("--workers", "3")
        service.start()
        pids = service.rolled_out(2)
        assert len(pids) == 3
        traffic.moves_to(pids)
    assert list(lines(service.log(), "another number of workers"))


def test_another_app(tmp_path: Path, start: Start) -> None:
    """Started with another app, it rolls that out; one that cannot serve leaves the old one serving."""
    service = start()
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


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(["{}"], ["{}", "unix:{folder}/s"], id="one-more"),
        pytest.param(["unix:{folder}/s", "{}"], ["{}"], id="one-less"),
        pytest.param(["{}"], ["web={}"], id="another-name"),
        pytest.param(["web={}"], ["{}"], id="no-name"),
        pytest.param(["a=unix:{folder}/s", "b={}"], ["a={}", "b=unix:{folder}/s"], id="names-exchanged"),
    ],
)
def test_another_bind(tmp_path: Path, start: Start, before: Sequence[str], after: Sequence[str]) -> None:
    """Started with other binds, it keeps the sockets that are wanted still, whatever their name, and rolls out."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    service = start(workers=1, binds=[bind.format(address, folder=tmp_path) for bind in before])
    with Traffic(address) as traffic:
        service.die()
        service.argv = service.argv[: service.argv.index("--bind")]
        for bind in after:
            service.change("--bind", bind.format(address, folder=tmp_path))
        service.start()
        traffic.moves_to(service.rolled_out(2))
        assert len(service.status().listeners) == len(after)
        for listener in service.status().listeners:
            with Peer(listener.address) as peer:
                assert peer.get().generation == 2
    assert (tmp_path / "s").exists() == any("unix" in bind for bind in after)
    assert list(lines(service.log(), "other listeners"))


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


# Workers that die, hang or wait in vain


def test_who_was_killed_meanwhile_is_replaced(start: Start) -> None:
    """A worker that dies while there is no supervisor is replaced by the next; the other is the same process."""
    service = start()
    pids = service.pids()
    service.die()
    os.kill(pids["1.1"], signal.SIGKILL)
    psutil.Process(pids["1.2"]).status()
    service.start()

    def replaced() -> bool:
        now = service.pids()
        return len(now) == 2 and now["1.2"] == pids["1.2"] and now["1.1"] != pids["1.1"]

    eventually(replaced, "1.1 is replaced")
    assert list(lines(service.log(), "1.1", "ended while no supervisor ran"))


def test_all_were_killed(start: Start) -> None:
    """Where nobody lives any more, the next supervisor starts from nothing."""
    service = start()
    service.die()
    for process in service.processes():
        process.kill()
    service.start()
    assert service.generations() == [1]
    assert service.get()
    assert "no record of what ran here" not in service.log()


def test_a_worker_that_hangs_keeps_nobody_waiting(start: Start) -> None:
    """Custody comes back from the others at once; the stopped one, when it goes on, is one of the service's again."""
    service = start()
    pids = service.pids()
    service.die()
    os.kill(pids["1.1"], signal.SIGSTOP)
    try:
        began = time.monotonic()
        service.start()
        assert time.monotonic() - began < 5
    finally:
        os.kill(pids["1.1"], signal.SIGCONT)
    with Traffic(service.address()) as traffic:
        assert service.pids() == pids
        assert service.reload().returncode == 0
        traffic.moves_to(service.rolled_out(2))
    assert not list(lines(service.log(), "killed"))


def test_the_only_worker_hangs(tmp_path: Path, start: Start) -> None:
    """A worker that alone holds the listeners and says nothing is waited for, then ended; its slot is filled."""
    copy = mutated(tmp_path, ("daemon/takeover.py", "PATIENCE: Final = 30.0", "PATIENCE: Final = 1.0"))
    service = start(workers=1, path=copy["PYTHONPATH"])
    pids = service.pids()
    service.die()
    os.kill(pids["1.1"], signal.SIGSTOP)
    service.start()
    eventually(lambda: service.pids().get("1.1", pids["1.1"]) != pids["1.1"], "another serves in its slot")
    assert service.get()
    assert list(lines(service.log(), f"(pid {pids['1.1']}) holds the listeners and says nothing: killed"))


def test_nobody_comes_back(start: Start) -> None:
    """Workers that no supervisor takes back in time finish, drain and leave; the next start works on their files."""
    service = start("--orphan-timeout", "0.5")
    with Peer(service.address()) as peer:
        assert peer.get().status == 200
        service.die()
        assert peer.ends()
    eventually(lambda: not service.processes(), "they leave")
    assert service.record().exists()
    service.start()
    assert service.get()
    assert service.generations() == [1]


def test_sigterm_to_an_orphan(start: Start) -> None:
    """A worker without a supervisor that is sent SIGTERM drains at once: nobody could replace it."""
    service = start()
    service.die()
    for process in service.processes():
        process.terminate()
    eventually(lambda: not service.processes(), "they leave", deadline=10)
    service.start()
    assert service.get()


# A stop


def test_killed_during_a_stop(tmp_path: Path, start: Start) -> None:
    """A stop ends with the supervisor that was told to: the next one serves, while the old worker finishes."""
    service = start(workers=1)
    with Peer(service.address()) as peer:
        peer.send(b"GET /wait?gate=g HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually((tmp_path / "g.reached").exists, "it is in progress")
        service.process.terminate()
        eventually(lambda: service.status().state == "stopping", "it stops")
        service.die()
        service.start()
        assert service.get()
        assert set(service.pids()) == {"2.1"}
        (tmp_path / "g").touch()
        assert peer.answer().generation == 1
    service.rolled_out(2)


def test_a_taken_over_service_stops(start: Start) -> None:
    """A stop of workers that were taken over is as any: they drain, leave, and nothing is left."""
    service = start()
    service.die()
    service.start()
    with Peer(service.address()) as peer:
        assert peer.get().status == 200
        service.process.terminate()
        with suppress(Ended):
            peer.get()
    assert service.process.wait(20) == 0
    assert not service.processes()


def test_two_at_once(start: Start) -> None:
    """A second supervisor beside one that has taken over is told who that is."""
    service = start()
    service.die()
    service.start()
    second = subprocess.run(service.argv, capture_output=True, text=True, cwd=service.folder, timeout=20, check=False)
    assert second.returncode == 1
    assert f"pid {service.process.pid}" in second.stderr
    assert service.get()


# In the middle of a rollout


def test_killed_while_the_new_ones_boot(tmp_path: Path, start: Start) -> None:
    """The rollout is aborted, for that reason; the old generation is the same, and the next reload works."""
    service = start()
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
        assert service.reload().returncode == 0
        traffic.moves_to(service.rolled_out(3))
    assert len(service.processes()) == 2


def test_killed_while_the_first_ones_boot(tmp_path: Path, start: Start) -> None:
    """Killed before anything served, with a worker that hangs in its import: the next start does not wait for it."""
    (tmp_path / "hold-1.1").touch()
    service = start(wait=False)
    eventually((tmp_path / "held-1.1").exists, "the first one boots")
    service.die()
    service.start_without_waiting()
    eventually(lambda: len(list(lines(service.log(), "gen 1 boots"))) == 2, "it boots anew", deadline=10)
    (tmp_path / "hold-1.1").unlink()
    service.until_serving()
    assert service.get()
    assert len(service.processes()) == 2


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


# A full disk


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(filler: Path) -> None:
    """Leave no room on a file system."""
    with suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(b"x" * 1024)


def test_a_full_disk(small: Path, stack: ExitStack, tmp_path: Path) -> None:
    """With no room for the record commands are refused, and say so; what serves goes on, and is kept going."""
    service = stack.enter_context(Mortal(tmp_path, workers=2, runtime=small / "rt"))
    pids = service.pids()
    filler = small / "filler"
    with Traffic(service.address()) as traffic:
        fill(filler)
        for words in (["reload"], ["scale", "3"]):
            refused = service.cli(*words)
            assert refused.returncode == 1
            assert "No space left on device" in refused.stdout + refused.stderr
        assert service.pids() == pids
        assert service.generations() == [1]
        traffic.goes_on()
    os.kill(pids["1.1"], signal.SIGKILL)  # what it holds would be lost with it: nobody asks now
    eventually(lambda: service.pids().get("1.1", pids["1.1"]) != pids["1.1"], "its slot is filled")
    pids = service.pids()
    with Traffic(service.address()) as traffic:
        service.die()
        service.start()
        traffic.goes_on()
        assert service.pids() == pids, "there is room for one record, though not for two"
        service.die()
        service.record().unlink()
        fill(filler)
        service.start()
        traffic.moves_to(service.rolled_out(2))
        assert not service.record().exists(), "there is room for none"
        filler.unlink()
        assert service.reload().returncode == 0
        pids = service.pids()
        service.die()
        service.start()
        assert service.pids() == pids
        assert service.rolled_out(3) == set(pids.values())
