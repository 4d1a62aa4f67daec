"""What the doctor makes of the protections: each that is off is a finding with a way out."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stillup.client.doctor.facts import (
    DirectoryFacts,
    EnvironmentFacts,
    Facts,
    KernelFacts,
    ProtectionFacts,
    SecurityFacts,
    SupervisorFacts,
)
from stillup.client.doctor.findings import Finding
from stillup.client.doctor.gather_protections import look
from stillup.client.doctor.protections import protections
from stillup.core.values import replace

SERVICE = SupervisorFacts(runs=True, pid=70, uid=0, state="serving", workers=2)
SAFE = ProtectionFacts({33: "shop"})
PLACE = DirectoryFacts("/run/stillup/shop", None)
FACTS = Facts(0, PLACE, SERVICE, KernelFacts("6.1"), SecurityFacts(), EnvironmentFacts((3, 12), "0.44"), SAFE)


def _found(seen: ProtectionFacts, service: SupervisorFacts = SERVICE) -> list[Finding]:
    return protections(replace(FACTS, protections=seen, service=service))


def test_all_is_on() -> None:
    """Workers of a user of their own, no bind that is open to all, no level of another's: one line, and no advice."""
    (found,) = _found(SAFE)
    assert (found.check, found.verdict, found.advice) == ("worker user", "ok", "")


def test_nothing_is_known() -> None:
    """Of a service that does not run, or whose processes are hidden, nothing is said."""
    assert _found(SAFE, SupervisorFacts(runs=False)) == []
    assert _found(ProtectionFacts()) == []


@pytest.mark.parametrize(
    ("seen", "service", "check", "verdict", "says"),
    [
        (ProtectionFacts({0: "root"}), SERVICE, "worker user", "warning", "workers are root"),
        (ProtectionFacts({33: "shop"}), replace(SERVICE, uid=33), "worker user", "warning", "workers are shop"),
        (replace(SAFE, neighbours=("nginx (pid 7)",)), SERVICE, "shared user", "warning", "nginx (pid 7)"),
        (replace(SAFE, open_binds=("unix:/run/a.sock",)), SERVICE, "binds", "warning", "connect to unix:/run/a.sock"),
        (replace(SAFE, hazards=("/srv is bob's",)), SERVICE, "directories", "problem", "/srv is bob's"),
    ],
    ids=["root", "one user", "shared user", "open bind", "directory"],
)
def test_what_is_off(seen: ProtectionFacts, service: SupervisorFacts, check: str, verdict: str, says: str) -> None:
    """Each says what was seen, and what to do."""
    (found,) = [one for one in _found(seen, service) if one.check == check]
    assert found.verdict == verdict
    assert says in found.seen
    assert found.advice


def test_whose_word_is_said() -> None:
    """A bind that is open to all is no warning where --forwarded-allow-ips was given."""
    seen = replace(SAFE, open_binds=("unix:@shop",), says_who_forwards=True)
    assert [one.check for one in _found(seen)] == ["worker user"]


def test_what_is_looked_at(tmp_path: Path) -> None:
    """The users of workers, the modes of socket files, abstract sockets, the levels of the directory."""
    closed, opened = tmp_path / "closed.sock", tmp_path / "open.sock"
    for path, mode in ((closed, 0o660), (opened, 0o666)):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
        path.chmod(mode)
    addresses = ("127.0.0.1:80", f"unix:{closed}", f"unix:{opened}", "unix:@shop", f"unix:{tmp_path}/gone.sock")
    service = replace(SERVICE, pid=os.getpid(), uid=os.geteuid(), worker_pids=(os.getpid(),), addresses=addresses)
    level = tmp_path / "shared"
    level.mkdir()
    level.chmod(0o777)
    seen = look(str(level / "rt"), service)
    assert list(seen.workers) == [os.geteuid()]
    assert seen.open_binds == (f"unix:{opened}", "unix:@shop")
    assert not seen.says_who_forwards
    assert seen.neighbours == ()
    assert not seen.hazards or all(str(tmp_path) not in why for why in seen.hazards)
    (level / "a").mkdir()
    assert any(str(level) in why for why in look(str(level / "a" / "rt"), service).hazards)


def test_neighbours_are_named() -> None:
    """A process of the workers' user that is none of the service's; not those who ask."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    words = [sys.executable, "-c", "import os; os.setuid(20077); print(flush=True); import time; time.sleep(60)"]
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE) as worker,
        subprocess.Popen(words, stdout=subprocess.PIPE) as neighbour,
    ):
        try:
            for process in (worker, neighbour):
                assert process.stdout is not None
                process.stdout.readline()
            service = replace(SERVICE, pid=worker.pid, worker_pids=(worker.pid,))
            seen = look("/run/stillup/shop", service)
            assert seen.workers == {20077: "20077"}
            assert [f"(pid {neighbour.pid})" in one for one in seen.neighbours] == [True]
        finally:
            for process in (worker, neighbour):
                process.kill()
