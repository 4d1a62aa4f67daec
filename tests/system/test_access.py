"""Who may do what: real users at every socket, each operation of the table; and workers of another user."""

from __future__ import annotations

import grp
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from supervisor.core.access import Role
from supervisor.daemon.own_sockets import TRIAL
from supervisor.wire.events import RequestAudited
from supervisor.wire.operations import OPERATIONS, Door, Operation
from tests.system.harness import APP, ROOT, Service, eventually, pids

pytestmark = pytest.mark.skipif(
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
            head += sock.recv(4096)
        return int(head.split()[1])
"""
"""What answers are there to (socket, method, path)? Its status, and 0 if the file's mode keeps us out."""
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
    """A user, and the roles that are his due."""

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


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that anybody can get through, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="stillup-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def questions(service: Service, port: str) -> list[tuple[Door, Operation, tuple[str, str, str]]]:
    """Every operation at every socket. One that does something is asked with a parameter that it does not take."""
    service.client.scale(1)  # so that there is one to ask for
    where = {door: str(service.runtime / door) for door in Door} | {Door.ADMIN: port}
    return [
        (door, one, (where[door], one.method, one.path.replace("{id}", "1") + ("?x=1" if one.method == "POST" else "")))
        for door in Door
        for one in OPERATIONS
    ]


def due(who: Somebody, door: Door, operation: Operation, *, worker: bool = False) -> str:
    """What the table says: 'denied', 'nothing' (there is no such thing) or 'allowed'."""
    if door is Door.ADMIN:
        return "allowed" if door in operation.doors else "nothing"
    looks = operation.method == "GET"
    if door not in operation.doors and looks:
        return "nothing"
    held = who.at_control if door is Door.CONTROL else who.at_observe
    return "allowed" if door in operation.doors and held.covers(operation.role) and not worker else "denied"


def got(status: int, operation: Operation) -> str:
    if status in (403, 404):
        return {403: "denied", 404: "nothing"}[status]
    assert status == 200 if operation.method == "GET" else status == 400, (operation, status)
    return "allowed"


def differences(
    asked: Sequence[tuple[Door, Operation, tuple[str, str, str]]], answers: Sequence[int], who: Somebody, **rest: bool
) -> list[str]:
    assert len(asked) == len(answers)
    return [
        f"{door} {one.method} {one.path}: {seen}, not {wanted}"
        for (door, one, _), status in zip(asked, answers, strict=True)
        if (seen := got(status, one)) != (wanted := due(who, door, one, **rest))
    ]


def denied(asked: Sequence[tuple[Door, Operation, tuple[str, str, str]]]) -> Counter[tuple[int, str]]:
    """How often each user is denied each request for a change, by the table."""
    people = [(who, False) for who in PEOPLE.values()] + [(WORKERS, True)] * 3
    return Counter(
        (who.uid, one.path)
        for who, worker in people
        for door, one, _ in asked
        if one.method == "POST" and due(who, door, one, worker=worker) == "denied"
    )


def audited(service: Service) -> Counter[tuple[int, str]]:
    """The same by the audit."""
    with service.client.events() as events:
        found = [event for event in events if isinstance(event, RequestAudited) and event.outcome == "denied"]
    return Counter((event.principal.uid, event.path) for event in found)


def test_matrix(folder: Path) -> None:
    """Principal x operation x socket: what the table allows and nothing else, at files that anybody may write to.

    Each denial of a request for a change is on the feed, with the right uid.

    Workers, their children, and those that have left the line of their parents are refused though they are root. What
    is opened is as configured before that, and after a re-exec, which takes a role away; and gone after the stop that
    an admin asks for.
    """
    service = Service(
        folder,
        "main:app",
        *("--operator", f"gid:{OPERATORS}", "--admin", f"group:{ADMINS.gr_name}"),
        *("--control-group", str(CONTROL_GID), "--observe-group", str(OBSERVE_GID), "--admin-bind", "127.0.0.1:0"),
        runtime=folder / "rt",
    )
    service.write(ASKING_APP)
    settings = folder / "stillup.toml"
    settings.write_text('viewer = ["uid:20001", "uid:20009"]\n')
    with service:
        port = _port(service)
        asked = questions(service, port)
        _are_closed(service)
        for name in (Door.CONTROL, Door.OBSERVE):
            (service.runtime / name).chmod(0o666)
        wrong = {name: differences(asked, who.asks([what for *_, what in asked]), who) for name, who in PEOPLE.items()}
        (folder / "questions").write_text(json.dumps([what for *_, what in asked]))
        for kind in ("worker", "child", "orphan"):
            answers = json.loads(service.get(f"/{kind}"))
            if kind == "orphan":
                answers = json.loads(eventually(lambda: _text(folder / "orphan"), "the orphan has asked"))
            wrong[kind] = differences(asked, answers, WORKERS, worker=True)
        assert not any(wrong.values()), json.dumps(wrong, indent=1)
        assert len(asked) * (len(PEOPLE) + 3) >= 13 * 3 * 17
        assert audited(service) == denied(asked)

        settings.write_text('viewer = ["uid:20009"]\n')
        assert service.cli("supervisor", "reexec").returncode == 0
        _are_closed(service)  # their modes are again what they were meant to be
        assert _port(service) == port
        viewer, admin = PEOPLE["viewer by uid"], PEOPLE["admin by a group's name"]
        control, observe = str(service.runtime / Door.CONTROL), str(service.runtime / Door.OBSERVE)
        assert viewer.asks([(port, "GET", "/livez"), (observe, "GET", "/v1/status")]) == [200, 200]
        assert viewer.asks([(control, "GET", "/v1/status"), (control, "POST", "/v1/stop")]) == [403, 403]
        assert admin.asks([(control, "POST", "/v1/stop")]) == [202]
        assert service.process.wait(20) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)))


def _port(service: Service) -> str:
    """Where --admin-bind was bound to last."""
    return str(re.findall(r"metrics and probes: http://127\.0\.0\.1:([0-9]+)/metrics", service.log())[-1])


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _are_closed(service: Service) -> None:
    """Modes and owners; and whoever is in no group does not even get in."""
    eventually(lambda: _mode(service.runtime / Door.CONTROL) == (0o660, 0, CONTROL_GID), "the control socket's mode")
    assert _mode(service.runtime) == (0o711, 0, 0)
    assert _mode(service.runtime / Door.OBSERVE) == (0o660, 0, OBSERVE_GID)
    assert _mode(service.runtime / "handoff.sock") == (0o600, 0, 0)
    look = [(str(service.runtime / door), "GET", "/v1/version") for door in (Door.CONTROL, Door.OBSERVE)]
    assert PEOPLE["stranger"].asks(look) == [0, 0]
    assert PEOPLE["in the control group alone"].asks(look) == [200, 0]
    assert PEOPLE["in the observe group"].asks(look) == [0, 200]


def _mode(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def test_an_unprivileged_supervisor(folder: Path) -> None:
    """The supervisor's own user and root may do everything, a viewer looks, anybody else is told what is missing."""
    own = Somebody(20_010, 20_010, (), Role.ADMIN, Role.ADMIN)
    os.chown(folder, own.uid, own.gid)
    service = Service(folder, "main:app", "--viewer", "uid:20001", runtime=folder / "rt")
    service.argv = own.command(*service.argv)
    service.write()
    with service:
        assert "roles are given to others, and no socket is open to them" in service.log()
        assert _mode(service.runtime) == (0o700, own.uid, own.gid)
        asked = [one for one in questions(service, "0") if one[0] is Door.CONTROL]
        service.runtime.chmod(0o711)
        (service.runtime / Door.CONTROL).chmod(0o666)
        people = [own, PEOPLE["root"], PEOPLE["viewer by uid"], PEOPLE["admin by a group's name"], PEOPLE["stranger"]]
        people[3] = Somebody(20_004, 20_004, (ADMINS.gr_gid,), Role.NONE, Role.NONE)
        wrong = {who.uid: differences(asked, who.asks([what for *_, what in asked]), who) for who in people}
        assert not any(wrong.values()), json.dumps(wrong, indent=1)
        curl = ["curl", "-s", "--unix-socket", f"{service.runtime}/control.sock", "http://localhost/v1/status"]
        said = subprocess.run(PEOPLE["stranger"].command(*curl), capture_output=True, text=True, timeout=20, check=True)
        detail = json.loads(said.stdout)["detail"]
        assert re.fullmatch(
            r"uid 20007, pid \d+ has no role here; this needs 'viewer': start .* with --viewer uid:20007, .*", detail
        )


def test_a_port_that_is_taken(folder: Path) -> None:
    """--admin-bind in use: one clear line, and nothing is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        service = Service(folder, "main:app", "--admin-bind", where, wait=False)
        service.write()
        with service:
            assert service.process.wait(20) == 1
    assert f"cannot bind {where}: address already in use" in service.log()
    assert not service.runtime.exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--viewer", "user:no-such-user"), "--viewer user:no-such-user: no user is named 'no-such-user'"),
        (("--control-group", "no-such-group"), "--control-group: no group is named 'no-such-group'"),
        (("--worker-user", "no-such-user"), "--worker-user: no user is named 'no-such-user'"),
    ],
)
def test_check_looks_the_names_up(folder: Path, words: tuple[str, ...], says: str) -> None:
    """'stillup check' finds a name that nobody has: one line, exit 2."""
    service = Service(folder)
    service.write()
    argv = [service.argv[0], "check", "main:app", *words]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_trial_sees_what_keeps_others_out(folder: Path) -> None:
    """A re-exec with a group that could not get to its socket, or may not be given it, is refused, and all goes on.

    One with another address at the port that --admin-bind has is none of these.
    """
    own = Somebody(20_010, 20_010, (20_011,), Role.ADMIN, Role.ADMIN)
    os.chown(folder, own.uid, own.gid)
    runtime = folder / "rt"
    runtime.mkdir(mode=0o700)
    os.chown(runtime, own.uid, own.gid)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = Service(folder, "main:app", runtime=runtime)
    service.argv = own.command(*service.argv)
    service.write()
    settings = folder / "stillup.toml"
    settings.write_text(f'admin_bind = "127.0.0.1:{port}"\n')
    refused = {
        f'control_group = "{own.groups[0]}"': (0o700, "its mode is 0700: make it 0711"),
        'control_group = "20012"': (
            0o711,
            "only root may give a file to another user, or to a group that it is not in",
        ),
        'observe_group = "20012"': (0o711, "only root may give a file"),
    }
    with service:
        before = (service.process.pid, pids(service))
        for line, (mode, why) in refused.items():
            runtime.chmod(mode)
            settings.write_text(f'admin_bind = "0.0.0.0:{port}"\n{line}\n')
            done = service.cli("supervisor", "reexec")
            assert (done.returncode, why in done.stderr) == (1, True), done.stderr
            assert (service.process.pid, pids(service)) == before
            assert not (runtime / TRIAL).exists()
        settings.write_text(f'admin_bind = "0.0.0.0:{port}"\ncontrol_group = "{own.groups[0]}"\n')
        assert service.cli("supervisor", "reexec").returncode == 0
        assert f"metrics and probes: http://0.0.0.0:{port}/metrics" in service.log()
        assert _mode(runtime / Door.CONTROL) == (0o660, own.uid, own.groups[0])
        assert (service.process.pid, pids(service)) == before


APP_WITHOUT_RIGHTS = """
import json, os, pwd, socket
def tries(make, address):
    with make() as sock:
        try:
            sock.connect(address) if isinstance(address, str) else sock.bind(address)
        except OSError as error:
            return error.strerror
    return "done"
def found():
    control = os.path.dirname(os.environ["STILLUP_HANDOFF"]) + "/control.sock"
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return json.dumps({
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "caps": [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")],
        "control": tries(lambda: socket.socket(socket.AF_UNIX), control),
        "port": tries(socket.socket, ("127.0.0.1", 81)),
        "session": os.getsid(0) == os.getpid(),
    }).encode()
""" + APP.replace("    body =", '    body = found() if scope["path"] == "/rights" else')
WORKER = 20_020


def _for_anybody(folder: Path) -> list[str]:
    """The words before a command that let every user run our interpreter, in a mount namespace if need be."""
    needed = sorted({os.path.realpath(path) for path in (sys.base_prefix, sys.prefix, ROOT)}, key=len)
    parents = (str(parent) for path in needed for parent in reversed(Path(path).parents))
    closed = next((parent for parent in parents if not os.stat(parent).st_mode & stat.S_IXOTH), None)
    if closed is None:
        return []
    script = ["set -e"]
    hidden = [path for path in needed if path.startswith(f"{closed}/")]
    for number, path in enumerate(hidden):
        script += [f"mkdir {folder}/m{number}", f"mount --bind {path} {folder}/m{number}"]
    script.append(f"mount -t tmpfs -o mode=755 tmpfs {closed}")
    for number, path in enumerate(hidden):
        script += [f"mkdir -p {path}", f"mount --move {folder}/m{number} {path}"]
    wrapper = folder / "for-anybody"
    wrapper.write_text("\n".join([*script, 'exec "$@"']))
    words = ["unshare", "--mount", "sh", str(wrapper)]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("other users cannot run our interpreter, and there are no mount namespaces")
    for number in range(len(hidden)):
        (folder / f"m{number}").rmdir()
    return words


@pytest.fixture
def unprivileged_workers(folder: Path) -> Iterator[Service]:
    """A service whose supervisor is root's, and whose workers are not."""
    words = ("--worker-user", str(WORKER), "--worker-group", str(WORKER + 1), "--orphan-timeout", "60")
    service = Service(folder, "main:app", *words, workers=1, runtime=folder / "rt")
    service.argv = [*_for_anybody(folder), *service.argv]
    service.write(APP_WITHOUT_RIGHTS)
    with service:
        yield service


def _no_mounts(service: Service) -> None:
    """Make room for those of the next mount namespace."""
    for place in service.folder.glob("m[0-9]"):
        place.rmdir()


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
    assert seen["ids"] == [[WORKER] * 3, [WORKER + 1] * 3, []]
    assert seen["caps"] == [0, 0, 0, 0]
    assert seen["control"] == "Permission denied"
    assert seen["session"]  # so that it has no terminal of ours
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) > 81:
        assert seen["port"] == "Permission denied"
    assert _mode(service.runtime) == (0o711, 0, 0)
    assert _mode(service.runtime / "handoff.sock") == (0o600, WORKER, 0)
    assert service.reload().returncode == 0

    for with_record in (True, False):
        left = _dies(service)
        if not with_record:
            (service.runtime / "record.json").unlink()
        _no_mounts(service)
        service.start()
        assert pids(service) == left
    assert service.reload().returncode == 0

    (pid,) = _dies(service).values()
    _no_mounts(service)
    argv = [str(WORKER + 5) if word == str(WORKER) else word for word in service.argv]
    refused = subprocess.run(argv, cwd=service.folder, capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 1
    assert f"a worker of uid {WORKER} serves here (pid {pid})" in refused.stderr
    assert psutil.Process(pid).uids().real == WORKER
    stopped = service.cli("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert "ending the 1 workers that it left" in stopped.stdout
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
