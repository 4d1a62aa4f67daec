"""What a worker of another user holds, and what it can do to the supervisor, and to another worker of its user."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.access.open_interpreter import for_anybody
from tests.system.access.people import needs_root
from tests.system.harness import APP, Service, pids

pytestmark = needs_root

WORKER = 20_023

APP_THAT_PRIES = """
import ctypes, json, os, signal, socket
libc = ctypes.CDLL(None, use_errno=True)
def tries(function, *args):
    try:
        function(*args)
    except OSError as error:
        return error.strerror
    return "done"
def system_call(number, *args):
    if libc.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def takes_a_descriptor(pid):
    pidfd = os.pidfd_open(pid)
    try:
        system_call(438, pidfd, 0, 0)  # pidfd_getfd
    finally:
        os.close(pidfd)
def attaches(pid):
    if libc.ptrace(0x4206, pid, None, None) < 0:  # PTRACE_SEIZE: it goes on
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    libc.ptrace(17, pid, None, None)
def prying(pid):
    return {
        "descriptors": tries(os.listdir, f"/proc/{pid}/fd"),
        "environment": tries(lambda: open(f"/proc/{pid}/environ").read()),
        "memory": tries(open, f"/proc/{pid}/mem", "rb"),
        "takes a descriptor": tries(takes_a_descriptor, pid),
        "attaches": tries(attaches, pid),
        "signals": tries(os.kill, pid, 0),
        "limits": tries(lambda: os.sched_setaffinity(pid, os.sched_getaffinity(0))),
    }
def claims(pid):
    from stillup.wire import handoff_messages as said
    environment = dict(one.split("=", 1) for one in open(f"/proc/{pid}/environ").read().split(chr(0)) if one)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(10)
        sock.connect(environment["STILLUP_HANDOFF"])
        sock.send(said.encode(said.Hello(said.PROTOCOL, environment["STILLUP_NONCE"])))
        return sock.recv(100_000).decode()
def answer(path):
    _, what, pid = path.split("/")
    return json.dumps({"pry": prying, "claim": claims}[what](int(pid))).encode()
""" + APP.replace(
    "    body =",
    """    if scope["path"].count("/") == 2:
        import asyncio
        body = await asyncio.to_thread(answer, scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
        return
    body =""",
)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Two workers of another user."""
    with tempfile.TemporaryDirectory(prefix="stillup-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        words = ("--worker-user", str(WORKER), "--worker-group", str(WORKER))
        service = Service(folder, "main:app", *words, workers=2)
        service.argv = [*for_anybody(folder), *service.argv]
        service.write(APP_THAT_PRIES)
        with service:
            yield service


def _files(pid: int) -> dict[tuple[int, int], str]:
    """What a process has open that is something by itself: by device and inode, what it is."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            status, name = path.stat(), os.readlink(path)
        except FileNotFoundError:  # it was closed a moment ago
            continue
        if not name.startswith("anon_inode:"):
            found[status.st_dev, status.st_ino] = name
    return found


def test_what_a_worker_has_of_the_supervisors(service: Service) -> None:
    """/dev/null, the log, each listener, the two ends of the queue, and the memory in which it alone counts."""
    supervisor = _files(service.process.pid)
    figures = set()
    for pid in pids(service).values():
        shared = {key: name.partition(":")[0] for key, name in _files(pid).items() if key in supervisor}
        expected = ["/dev/null", "/memfd", str(service.log_file), "socket", "socket", "socket"]
        assert sorted(shared.values()) == expected
        figures |= {key for key, name in shared.items() if name == "/memfd"}
    assert len(figures) == 2


def test_what_it_cannot_do_to_the_supervisor(service: Service) -> None:
    """Neither look into it, nor take from it, nor stop it."""
    found = json.loads(service.get(f"/pry/{service.process.pid}"))
    denied = ("Permission denied", "Operation not permitted")
    assert {name: said for name, said in found.items() if said not in denied} == {}


def test_what_it_can_do_to_a_neighbour(service: Service) -> None:
    """Workers of one user are one: each can look into another, and speak for it, as far as Yama lets it.

    It cannot come in at handoff.sock in its place.
    """
    first, second = pids(service).values()
    there = [json.loads(service.get(f"/pry/{pid}")) for pid in (first, second)]
    for what in ("descriptors", "environment", "signals", "limits"):
        assert [found[what] for found in there] == ["done", "done"], what
    answers = {service.get(f"/claim/{pid}") for pid in (first, second) for _ in range(4)}
    for answer in answers:
        assert "no worker with that nonce is expected" in answer
