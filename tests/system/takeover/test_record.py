"""What the next supervisor knows when the record is gone, ruined or cannot be written."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from stillup.client import ProblemError
from stillup.wire.handoff_messages import PROTOCOL
from tests.system.harness import eventually
from tests.system.killable_service import KillableService, Start
from tests.system.steady_load import Traffic


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


def test_without_a_record(start: Start) -> None:
    """With a record of no use the living are heard instead, and what was asked for is rolled out beside them.

    A directory in its place is no reason not to serve; commands are refused until it is gone.
    """
    service = start(workers=1)
    address = service.address()
    with Traffic(address) as traffic:
        for generation, ruin in enumerate(RUINS.values(), start=2):
            service.die()
            text = ruin(service.record().read_bytes())
            service.record().unlink()
            if text is not None:
                service.record().write_bytes(text)
            service.start()
            traffic.moves_to(service.rolled_out(generation))
            assert service.address() == address
            eventually(lambda: service.log().count("no record of what ran here") == generation - 1, "it says so")  # noqa: B023
        service.die()
        service.record().unlink()
        service.record().mkdir()
        service.start()
        traffic.goes_on()
        with pytest.raises(ProblemError, match="cannot be written down"):
            service.client.reload(wait="cut-over")
        service.record().rmdir()
        rollout = service.client.reload(wait="cut-over")
        assert rollout.generation is not None
        traffic.moves_to(service.rolled_out(rollout.generation))


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


def test_a_worker_of_another_service_is_not_taken_in(start: Start) -> None:
    """Without a record a process of the same user that claims another listener is left alone."""
    service = start(workers=1)
    service.die()
    service.record().unlink()
    service.start_without_waiting()
    said = {"type": "Resume", "protocol": PROTOCOL, "nonce": "x", "draining": False, "listeners": [], "queue": None}
    said["welcome"] = dict.fromkeys(["app", "directory", "app_dir"], "/") | {
        "protocol": PROTOCOL,
        "worker": 9,
        "generation": 9,
    }
    said["welcome"] |= {"options": {}, "drain_timeout": 1, "boot_timeout": 1}  # type: ignore[operator]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.settimeout(20)

        def connected() -> bool:
            with suppress(OSError):
                other.connect(str(service.runtime / "handoff.sock"))
                return True
            return False

        eventually(connected, "the next supervisor listens")
        other.send(json.dumps(said).encode())
        assert b"Return" in other.recv(4096)
        assert b"Resumed" in other.recv(4096)
        service.until_serving()
        assert b"Refusal" in other.recv(4096)
    service.logged("a worker of another service")
    service.rolled_out(2)


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
    service = stack.enter_context(KillableService(tmp_path, runtime=small / "rt"))
    pids = service.pids()
    filler = small / "filler"
    with Traffic(service.address()) as traffic:
        fill(filler)
        for refused in (service.client.reload, lambda: service.client.scale(2)):
            with pytest.raises(ProblemError, match="No space left on device"):
                refused()
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
        service.client.reload(wait="cut-over")
        pids = service.pids()
        service.die()
        service.start()
        assert service.pids() == pids
        assert service.rolled_out(3) == set(pids.values())
