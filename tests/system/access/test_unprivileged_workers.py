"""Workers of another user."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.system.access.open_interpreter import for_anybody, no_mounts
from tests.system.access.people import mode_of, needs_root
from tests.system.command_line import stillup
from tests.system.harness import APP, Service, pids

pytestmark = needs_root


APP_WITHOUT_RIGHTS = """
import json, os, pwd, socket
def tries(make, address):
    with make() as sock:
        try:
            sock.connect(address) if isinstance(address, str) else sock.bind(address)
        except OSError as error:
            return error.strerror
    return "done"
def closes_handoff():
    try:
        os.chmod(os.environ["STILLUP_HANDOFF"], 0)
    except OSError as error:
        return error.strerror.encode()
    return b"done"
def found():
    control = os.path.dirname(os.environ["STILLUP_HANDOFF"]) + "/control.sock"
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return json.dumps({
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "caps": [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "control": tries(lambda: socket.socket(socket.AF_UNIX), control),
        "port": tries(socket.socket, ("127.0.0.1", 81)),
        "session": os.getsid(0) == os.getpid(),
    }).encode()
does = {"/rights": found, "/closes-handoff": closes_handoff}
""" + APP.replace("    body =", '    body = does[scope["path"]]() if scope["path"] in does else')


WORKER = 20_020


@pytest.fixture
def unprivileged_workers(folder: Path) -> Iterator[Service]:
    """A service whose supervisor is root's, and whose workers are not."""
    words = ("--worker-user", str(WORKER), "--worker-group", str(WORKER + 1), "--orphan-timeout", "60")
    service = Service(folder, "main:app", *words, workers=1, runtime=folder / "rt")
    service.argv = [*for_anybody(folder), *service.argv]
    service.write(APP_WITHOUT_RIGHTS)
    with service:
        yield service


def _dies(service: Service) -> dict[str, int]:
    """The supervisor is killed; the workers that it leaves."""
    before = pids(service)
    service.signal(signal.SIGKILL)
    service.process.wait(20)
    return before


def test_workers_of_another_user(unprivileged_workers: Service) -> None:
    """They have that user's ids, no capability, no port below 1024 and no control socket; and all else works.

    A reload, a supervisor that is killed and started again, with its record and without, and a stop without one.
    """
    service = unprivileged_workers
    seen = json.loads(service.get("/rights"))
    assert seen["ids"] == [[WORKER] * 3, [WORKER + 1] * 3, [WORKER + 1]]
    assert seen["caps"] == [0, 0, 0, 0, 0]
    assert seen["no_new_privileges"] == "1"
    assert seen["control"] == "Permission denied"
    assert seen["session"]  # so that it has no terminal of ours
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) > 81:
        assert seen["port"] == "Permission denied"
    assert mode_of(service.runtime) == (0o711, 0, 0)
    assert mode_of(service.runtime / "handoff.sock") == (0o660, 0, WORKER + 1)
    assert service.get("/closes-handoff") == "Operation not permitted"
    service.client.reload(wait="cut-over")

    for with_record in (True, False):
        left = _dies(service)
        if not with_record:
            (service.runtime / "record.json").unlink()
        no_mounts(service.folder)
        service.start()
        assert pids(service) == left
    service.client.reload(wait="drained")

    (pid,) = _dies(service).values()
    no_mounts(service.folder)
    argv = [str(WORKER + 5) if word == str(WORKER) else word for word in service.argv]
    refused = subprocess.run(argv, cwd=service.folder, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 1
    assert f"a worker of uid {WORKER} serves here (pid {pid})" in refused.stderr
    assert psutil.Process(pid).uids().real == WORKER
    stopped = service.cli("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert "ending the 1 worker that it left" in stopped.stdout
    with suppress(psutil.NoSuchProcess):
        assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_an_interpreter_that_is_closed_to_the_workers(folder: Path) -> None:
    """As one below /root is: what to look at is said."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python").symlink_to(sys.executable)
    (folder / "main.py").write_text(APP)
    words = ("--worker-user", str(WORKER), "--worker-group", str(WORKER), "--python", str(closed / "python"))
    checked = stillup("check", "main:app", *words, cwd=folder)
    assert checked.returncode == 1
    assert f"cannot start {closed}/python: Permission denied (its user may not execute it, " in checked.stderr
