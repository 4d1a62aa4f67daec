"""Nobody locks the operator out of the control socket: not a worker of the same user, not its children, not a crowd."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from stillup.client import ProblemError
from stillup.core.caller_limits import Limits
from stillup.wire.event_feed import RequestAudited
from tests.system.harness import APP, STILLUP, Service, connect, eventually, lines, open_socket

HOSTILE = r"""
import os, selectors, socket, sys, threading, time

CROWD = 64
ASKED = b"POST /v1/stop HTTP/1.1\r\nHost: x\r\n\r\n" * 400

def press(path, flag):
    "Keep so many connections busy, each full of requests, as long as the flag is there."
    held = []
    while os.path.exists(flag):
        held = [sock for sock in held if alive(sock)]
        while len(held) < CROWD:
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            try:
                sock.connect(path)
            except OSError:
                break
            held.append(sock)
        time.sleep(0.05)  # time to deny some: who comes is let in for one that waits

def alive(sock):
    try:
        sock.send(ASKED)
    except BlockingIOError:
        pass
    except OSError:
        sock.close()
        return False
    try:
        if not sock.recv(1 << 20):
            raise OSError
    except BlockingIOError:
        pass
    except OSError:
        sock.close()
        return False
    return True
"""
"""What a worker does to the control socket."""
PRESSING_APP = (
    HOSTILE
    + f"SOURCE = {HOSTILE!r} + 'press(*sys.argv[1:])'\n"
    + r"""
import subprocess
PATH = os.path.dirname(os.environ["STILLUP_HANDOFF"]) + "/control.sock"
def begin(kind):
    flag = os.path.join(os.getcwd(), "flag")
    open(flag, "w").close()
    if kind == "worker":
        threading.Thread(target=press, args=(PATH, flag), daemon=True).start()
    else:
        subprocess.Popen([sys.executable, "-c", SOURCE, PATH, flag])
"""
    + APP.replace(
        "    body = ",
        '    if scope["path"] in ("/worker", "/child"):\n        begin(scope["path"][1:])\n    body = ',
        1,
    )
)
PRESSING = 120.0
"""Seconds that it may take: the supervisor lets in no more than it can deny, on a machine that others use few."""
SCRAPE = 0.5
"""Seconds between two looks at the metrics, which cost the supervisor more than the denials that they count."""


@pytest.fixture
def service(folder: Path) -> Iterator[Service]:
    service = Service(folder, runtime=folder / "rt")
    service.write(PRESSING_APP)
    with service:
        yield service
        (folder / "flag").unlink(missing_ok=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["worker", "child"])
def test_a_worker_keeps_no_operator_out(service: Service, kind: str) -> None:
    """Beside 64 connections full of requests, of a worker or its child, the operator looks, follows and reloads.

    They are of the supervisor's own user. What was accepted before is still in the history, and all denials are
    counted.
    """
    assert service.cli("reload", "--wait", "drained").returncode == 0  # or the old worker would begin, and leave
    service.get(f"/{kind}")
    before = _refused(service, "denied")
    eventually(lambda: _refused(service, "denied") > before + 150, "the worker asks for much", PRESSING, SCRAPE)
    for _ in range(20):
        assert service.client.whoami().role == "admin"
        time.sleep(0.02)
    with service.client.events(follow=True) as events:
        assert next(events)
        assert service.reload().returncode == 0
    (service.folder / "flag").unlink()
    with service.client.events() as events:
        audited = [event for event in events if isinstance(event, RequestAudited)]
    assert sum(event.outcome == "accepted" for event in audited) == 2
    assert 0 < sum(event.outcome == "denied" for event in audited) <= 100


def test_followers_leave_room(service: Service) -> None:
    """Of 64 followers of one user some are told that there are too many; commands are answered beside those that stay.

    Who is turned away for want of a place is told so, and not that the supervisor has ended.
    """
    path = f"{service.runtime}/control.sock"
    with ExitStack() as stack:
        told = Counter[str]()
        for _ in range(64):
            try:
                stack.enter_context(service.client.events(follow=True))
                told["follows"] += 1
            except ProblemError as error:
                told[str(error).partition(":")[0]] += 1
        limits = Limits()
        assert told == {"follows": limits.per_uid - limits.for_few, "busy": limits.for_few}
        status = [STILLUP, "status", "--runtime-dir", str(service.runtime)]
        done = subprocess.run(status, capture_output=True, text=True, check=False, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        with pytest.raises(ProblemError, match=r"busy: 4[89] connections of uid"):
            service.client.status()
        assert subprocess.run([*status[:1], "reload", *status[2:]], check=False, timeout=30).returncode == 0
        with open_socket(f"unix:{path}") as sock:  # even one that says something only later
            time.sleep(0.1)
            with suppress(BrokenPipeError):
                sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in answer.lower()
    eventually(lambda: service.cli("status").returncode == 0, "they have left")
    assert _refused(service, "busy") >= limits.for_few


def _refused(service: Service, why: str) -> float:
    connection = connect(f"unix:{service.runtime}/control.sock")
    with closing(connection):
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    (line,) = lines(text, f'stillup_control_refused_total{{why="{why}"}}')
    return float(line.split()[-1])
