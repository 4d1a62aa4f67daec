"""Users of this host, the roles that are due to each, and what they ask at the sockets."""

from __future__ import annotations

import grp
import json
import os
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from stillup.core.access import Role
from stillup.daemon.control.audit import MOST_OF_ONE
from stillup.wire.api_operation import ApiSocket, Operation
from stillup.wire.event_feed import RequestAudited
from stillup.wire.operations import OPERATIONS
from tests.system.harness import APP, Service

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, and setpriv to become somebody else"
)


CLIENT = r"""
import json, socket, sys
def ask(where, method, path):
    if where.startswith("/"):
        sock, address = socket.socket(socket.AF_UNIX), where
    else:
        sock, address = socket.socket(), ("127.0.0.1", int(where))
    with sock:
        sock.settimeout(20)
        try:
            sock.connect(address)
        except PermissionError:
            return 0
        sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n" not in head:
            piece = sock.recv(4096)
            if not piece:
                return -1
            head += piece
        return int(head.split()[1])
"""
"""What answers are there to (socket, method, path)? Its status, 0 if the file's mode keeps us out, -1 if none came."""


ASK = CLIENT + "\nprint(json.dumps([ask(*one) for one in json.load(sys.stdin)]))"


ASK_AS_ORPHAN = "import os, sys\nwhile os.path.exists(f'/proc/{sys.argv[1]}'): pass\n" + ASK


ASKING_APP = (
    f"CLIENT, ASK, ORPHAN = {CLIENT!r}, {ASK!r}, {ASK_AS_ORPHAN!r}\n"
    """
import json, os, subprocess, sys
exec(CLIENT)
def answers(path):
    if path == "/worker":
        return json.dumps([ask(*one) for one in json.load(open("questions"))]).encode()
    if path == "/child":
        return subprocess.run([sys.executable, "-c", ASK], stdin=open("questions"), capture_output=True).stdout
    words = '"$@" $$ <questions >orphan.new && mv orphan.new orphan &'
    subprocess.run(["sh", "-c", words, "sh", sys.executable, "-c", ORPHAN], check=True)
    return b"[]"
"""
    + APP.replace(
        "    body =",
        """    if scope["path"] in ("/worker", "/child", "/orphan"):
        import asyncio
        body = await asyncio.to_thread(answers, scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
        return
    body =""",
    )
)
"""Asks itself, by a child, or by a process that nobody is the parent of any more."""


LOOK = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
"""Our interpreter may be where only root may look; connect(2) takes the right to write."""


CONTROL_GID, OBSERVE_GID, OPERATORS = 20_100, 20_105, 20_102


ADMINS = next(entry for entry in grp.getgrall() if entry.gr_gid not in (0, 65534))
"""A group that has a name, as whoever is in it has here."""


@dataclass(frozen=True)
class Somebody:
    """A user, and the roles that are due to it."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    at_control: Role
    at_observe: Role

    def command(self, *words: str) -> list[str]:
        groups = f"--groups={','.join(map(str, self.groups))}" if self.groups else "--clear-groups"
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", groups, *LOOK, *words]

    def asks(self, questions: Sequence[tuple[str, str, str]]) -> list[int]:
        told = json.dumps(questions)
        argv = self.command(sys.executable, "-IS", "-c", ASK)
        done = subprocess.run(argv, input=told, capture_output=True, text=True, timeout=60, check=True)
        answers: list[int] = json.loads(done.stdout)
        return answers


IN = (CONTROL_GID, OBSERVE_GID)


PEOPLE = {
    "root": Somebody(0, 0, (), Role.ADMIN, Role.ADMIN),
    "viewer by uid": Somebody(20_001, 20_001, IN, Role.VIEWER, Role.VIEWER),
    "operator by a supplementary group": Somebody(20_002, 20_002, (*IN, OPERATORS), Role.OPERATOR, Role.OPERATOR),
    "operator by the primary group": Somebody(20_003, OPERATORS, IN, Role.OPERATOR, Role.OPERATOR),
    "admin by a group's name": Somebody(20_004, 20_004, (*IN, ADMINS.gr_gid), Role.ADMIN, Role.ADMIN),
    "viewer and admin": Somebody(20_001, 20_001, (*IN, ADMINS.gr_gid), Role.ADMIN, Role.ADMIN),
    "in the control group alone": Somebody(20_005, 20_005, (CONTROL_GID,), Role.NONE, Role.NONE),
    "in the observe group": Somebody(20_006, OBSERVE_GID, (), Role.NONE, Role.VIEWER),
    "stranger": Somebody(20_007, 20_007, (), Role.NONE, Role.NONE),
    "unmapped": Somebody(65_534, 65_534, (*IN, ADMINS.gr_gid), Role.NONE, Role.NONE),
}


WORKERS = Somebody(0, 0, (), Role.NONE, Role.NONE)


def questions(service: Service, port: str) -> list[tuple[ApiSocket, Operation, tuple[str, str, str]]]:
    """Every operation at every socket. One that does something is asked with a parameter that it does not take."""
    service.client.scale(1)  # so that there is one to ask for
    where = {api_socket: str(service.runtime / api_socket) for api_socket in ApiSocket} | {ApiSocket.ADMIN: port}
    return [
        (
            api_socket,
            one,
            (where[api_socket], one.method, one.path.replace("{id}", "1") + ("?x=1" if one.method == "POST" else "")),
        )
        for api_socket in ApiSocket
        for one in OPERATIONS
    ]


def due(who: Somebody, api_socket: ApiSocket, operation: Operation, *, worker: bool = False) -> str:
    """What the table says: 'denied', 'nothing' (there is no such thing) or 'allowed'."""
    if api_socket is ApiSocket.ADMIN:
        return "allowed" if api_socket in operation.sockets else "nothing"
    looks = operation.method == "GET"
    if api_socket not in operation.sockets and looks:
        return "nothing"
    held = who.at_control if api_socket is ApiSocket.CONTROL else who.at_observe
    return "allowed" if api_socket in operation.sockets and held.covers(operation.role) and not worker else "denied"


def got(status: int, operation: Operation) -> str:
    if status in (403, 404):
        return {403: "denied", 404: "nothing"}[status]
    assert status == 200 if operation.method == "GET" else status == 400, (operation, status)
    return "allowed"


def differences(
    asked: Sequence[tuple[ApiSocket, Operation, tuple[str, str, str]]],
    answers: Sequence[int],
    who: Somebody,
    **rest: bool,
) -> list[str]:
    assert len(asked) == len(answers)
    return [
        f"{api_socket} {one.method} {one.path}: {seen}, not {wanted}"
        for (api_socket, one, _), status in zip(asked, answers, strict=True)
        if (seen := got(status, one)) != (wanted := due(who, api_socket, one, **rest))
    ]


def denied(asked: Sequence[tuple[ApiSocket, Operation, tuple[str, str, str]]]) -> Counter[tuple[int, str]]:
    """How often each user is denied each request for a change, by the table; as far as that is told of one user."""
    people = [(who, False) for who in PEOPLE.values()] + [(WORKERS, True)] * 3
    told: Counter[tuple[int, str]] = Counter()
    of_one: Counter[tuple[int, bool]] = Counter()
    for who, worker in people:
        for api_socket, one, _ in asked:
            is_denied = one.method == "POST" and due(who, api_socket, one, worker=worker) == "denied"
            if is_denied and of_one[who.uid, worker] < MOST_OF_ONE:
                of_one[who.uid, worker] += 1
                told[who.uid, one.path] += 1
    return told


def audited(service: Service) -> Counter[tuple[int, str]]:
    """The same by the audit."""
    with service.client.events() as events:
        found = [event for event in events if isinstance(event, RequestAudited) and event.outcome == "denied"]
    return Counter((event.principal.uid, event.path) for event in found)


def mode_of(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
