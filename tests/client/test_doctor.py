"""What the doctor makes of what was seen: each finding by its facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from supervisor.client.doctor import findings as doctor
from supervisor.client.doctor.facts import Answer, Environment, Facts, File, Kernel, Place, Security, Service
from supervisor.client.doctor.findings import Finding, findings

RUN = "/run/stillup/web"
ROOT = File("web", "directory", 0o755, 0, 0, "root", "root")
CONTROL = File("control.sock", "socket", 0o660, 0, 0, "root", "root", Answer.YES)
HANDOFF = File("handoff.sock", "socket", 0o600, 0, 0, "root", "root", Answer.YES)
LOCK = File("lock", "file", 0o600, 0, 0, "root", "root")
PLACE = Place(RUN, ROOT, parent=replace(ROOT, name="stillup"), files=(CONTROL, HANDOFF, LOCK), lock_holder=70)
SERVICE = Service(
    runs=True,
    pid=70,
    uid=0,
    version="0.1.0",
    state="serving",
    workers=2,
    role="admin",
    backlog=2048,
    files=(20000, 20000),
    managed=True,
    notifies=True,
)
KERNEL = Kernel("6.1.0-1-amd64", somaxconn=4096, files=(1024, 524288), clock="tsc")
ENVIRONMENT = Environment((3, 12), "0.44.1", systemd=257)
WELL = Facts(0, PLACE, SERVICE, KERNEL, Security(), ENVIRONMENT)
NONE = Service(runs=False)
EMPTY = Place(RUN, None)


def _about(facts: Facts, check: str) -> list[Finding]:
    return [finding for finding in findings(facts) if finding.check == check]


def test_all_is_well() -> None:
    """A healthy service under systemd has nothing to complain about, and no advice."""
    assert [finding for finding in findings(WELL) if finding.verdict != "ok" or finding.advice] == []


def test_nothing_is_there_yet() -> None:
    """Without a supervisor and a directory there is no problem: 'stillup run' makes it."""
    facts = replace(WELL, place=EMPTY, service=NONE, environment=replace(ENVIRONMENT, systemd=None))
    assert {finding.verdict for finding in findings(facts)} == {"ok"}


def test_nothing_is_known() -> None:
    """Where nothing can be found out nothing is a problem, and nothing fails."""
    kernel = Kernel("", somaxconn=None, files=None, clock=None)
    facts = Facts(7, EMPTY, NONE, kernel, Security(), Environment((3, 11), "", systemd=None))
    assert {finding.verdict for finding in findings(facts)} == {"ok"}


@pytest.mark.parametrize(
    ("place", "service", "verdict", "says", "advises"),
    [
        (PLACE, SERVICE, "ok", "stillup 0.1.0, pid 70, serving", ""),
        (PLACE, NONE, "problem", "pid 70 holds the lock", "starting, or stuck"),
        (replace(PLACE, files=(LOCK,)), NONE, "problem", "pid 70 holds the lock", "kill -USR2 70"),
        (replace(PLACE, lock_holder=None), NONE, "ok", "none runs in", ""),
        (replace(PLACE, lock_holder=None, orphans=("1.1 pid 7",)), NONE, "warning", "it has died", "takes them over"),
        (PLACE, Service(runs=True, trouble="no answer", pid=70), "problem", "no answer", "pid 70 is stopped"),
        (PLACE, Service(runs=True, trouble="garbled"), "problem", "garbled", "it is stopped"),
        (PLACE, Service(runs=True, trouble="uid 7 has no role", denied=True), "warning", "no role", "as root"),
        (EMPTY, Service(runs=False, trouble="odd"), "warning", "odd", ""),
    ],
)
def test_supervisor(place: Place, service: Service, verdict: str, says: str, advises: str) -> None:
    """Whether it answers; else what has become of it."""
    (found,) = doctor.supervisor(place, service)
    assert (found.verdict, says in found.seen, advises in found.advice) == (verdict, True, True), found


def _place(path: str = RUN, **changes: Any) -> Place:
    return replace(PLACE, path=path, directory=replace(ROOT, **changes))


@pytest.mark.parametrize(
    ("place", "service", "uid", "verdict", "says"),
    [
        (_place(), SERVICE, 0, "ok", "0755 root:root"),
        (_place(mode=0o777), SERVICE, 0, "problem", "chmod go-w"),
        (_place(mode=0o770), NONE, 0, "problem", "group root can put"),
        (_place(uid=7), SERVICE, 0, "problem", "a supervisor of uid 0 refuses it"),
        (_place(uid=7), NONE, 8, "problem", "a supervisor of uid 8 refuses it"),
        (_place(uid=7), NONE, 0, "ok", "0755"),
        (_place(uid=7), replace(SERVICE, uid=7), 0, "ok", "0755"),
        (_place(kind="file"), NONE, 0, "problem", "is no directory"),
        (replace(_place(mode=0o700), open=False), NONE, 7, "warning", "not open to uid 7"),
        (Place(RUN, None), NONE, 0, "ok", "makes it"),
        (Place(RUN, None, can_be_made=False), NONE, 7, "problem", "uid 7 may not make it"),
        (Place(f"/run/{'x' * 100}", None), NONE, 0, "problem", "a socket's path has at most 107"),
        (_place("/tmp/here"), NONE, 0, "warning", "PrivateTmp="),
        (replace(_place("/tmp/stillup-7/web"), parent=replace(ROOT, uid=8)), NONE, 7, "problem", "made it first"),
        (replace(_place("/tmp/stillup-7/web"), parent=replace(ROOT, uid=7)), NONE, 7, "warning", "PrivateTmp="),
        (replace(_place("/run/user/7/stillup/web"), lingers=False), NONE, 7, "warning", "enable-linger"),
        (replace(_place("/run/user/7/stillup/web"), lingers=True), NONE, 7, "ok", "0755"),
    ],
)
def test_directory(place: Place, service: Service, uid: int, verdict: str, says: str) -> None:
    """Whether nobody else can write to it, its supervisor may use it, and it stays."""
    found = list(doctor.directory(place, service, uid))
    worst = max(found, key=lambda finding: ["ok", "warning", "problem"].index(finding.verdict))
    assert worst.verdict == verdict, found
    assert any(says in finding.seen + finding.advice for finding in found), found


@pytest.mark.parametrize(
    ("around", "sock", "verdict", "says"),
    [
        ({"mode": 0o700}, {}, "ok", "0660 root:root: root can connect"),
        ({"mode": 0o710, "gid": 7}, {"gid": 7, "group": "ops"}, "ok", "root, group ops can connect"),
        ({"mode": 0o755}, {"gid": 7, "group": "ops"}, "ok", "root, group ops can connect"),
        ({"mode": 0o700}, {"gid": 7, "group": "ops"}, "warning", "chgrp ops"),
        ({"mode": 0o700}, {"mode": 0o666}, "ok", "root can connect"),
        ({"mode": 0o755}, {"mode": 0o666}, "warning", "anybody can connect"),
        ({"mode": 0o700}, {"uid": 7, "user": "app"}, "ok", "app, root can connect"),
        ({"mode": 0o700}, {"answer": Answer.REFUSED}, "warning", "whoever made it has died"),
        ({"mode": 0o700}, {"kind": "file", "answer": None}, "problem", "is no socket"),
    ],
)
def test_control_sock(around: dict[str, Any], sock: dict[str, Any], verdict: str, says: str) -> None:
    """Whom the modes of the directory and of the socket together let connect."""
    place = replace(PLACE, directory=replace(ROOT, **around), files=(replace(CONTROL, **sock),))
    (found,) = doctor.sockets(place, SERVICE)
    assert (found.verdict, says in f"{found.seen} -> {found.advice}") == (verdict, True), found


def test_what_a_dead_supervisor_has_left() -> None:
    """Its socket files and its lock are said to be nobody's, and need no hand."""
    dead = tuple(replace(file, answer=Answer.REFUSED) for file in (CONTROL, HANDOFF))
    found = list(doctor.sockets(replace(PLACE, files=(*dead, LOCK), lock_holder=None), NONE))
    assert [(finding.check, finding.verdict) for finding in found] == [
        ("control.sock", "warning"),
        ("handoff.sock", "warning"),
        ("lock", "ok"),
    ]
    assert all(finding.advice.startswith("nothing to do") for finding in found)
    (unseen,) = doctor.sockets(Place(RUN, None, files=(CONTROL,)), NONE)
    assert unseen.verdict == "ok"


@pytest.mark.parametrize(("role", "verdict"), [("admin", "ok"), ("viewer", "ok"), ("", "ok"), ("none", "warning")])
def test_role(role: str, verdict: str) -> None:
    """Who has none is told that an admin gives one."""
    assert doctor.role(replace(SERVICE, role=role), 7).verdict == verdict


@pytest.mark.parametrize(
    ("own", "theirs", "verdict", "says"),
    [
        ((1024, 524288), None, "ok", "a process here may have 524288"),
        ((1024, -1), None, "ok", "any number"),
        ((256, 256), None, "problem", "LimitNOFILE="),
        ((1024, 4096), None, "warning", "not enough for 10000"),
        ((1024, 524288), (4096, 4096), "warning", "the supervisor may have 4096"),
        (None, None, "ok", "not known"),
    ],
)
def test_descriptors(own: tuple[int, int] | None, theirs: tuple[int, int] | None, verdict: str, says: str) -> None:
    """The hard limit counts, since the soft one is raised to it; that of the supervisor, if one runs."""
    found = doctor.descriptors(replace(NONE, files=theirs), replace(KERNEL, files=own))
    assert (found.verdict, says in found.seen + found.advice) == (verdict, True), found


@pytest.mark.parametrize(
    ("wanted", "given", "verdict"),
    [(None, 4096, "ok"), (None, 128, "warning"), (100, 128, "ok"), (5000, 4096, "warning")],
)
def test_backlog(wanted: int | None, given: int, verdict: str) -> None:
    """The kernel cuts a backlog to net.core.somaxconn without a word."""
    assert doctor.backlog(replace(SERVICE, backlog=wanted), replace(KERNEL, somaxconn=given)).verdict == verdict


@pytest.mark.parametrize(
    ("changes", "check", "verdict", "says"),
    [
        ({}, "kernel", "ok", "6.1.0"),
        ({"release": "5.10.0"}, "kernel", "ok", "5.10.0"),
        ({"release": "5.4.0-generic"}, "kernel", "problem", "5.10 or newer"),
        ({"release": "odd"}, "kernel", "ok", "odd"),
        ({"missing": ("pidfd_open",)}, "kernel", "problem", "seccomp"),
        ({"peer_pidfd": False}, "kernel", "ok", "SO_PEERPIDFD"),
        ({"own_users": False}, "users", "warning", "65534"),
        ({"clock": "hpet"}, "clock", "warning", "slow"),
        ({"clock": "kvm-clock"}, "clock", "ok", "kvm-clock"),
    ],
)
def test_kernel(changes: dict[str, Any], check: str, verdict: str, says: str) -> None:
    """Old kernels, forbidden calls, hidden users, slow clocks."""
    (found,) = _about(replace(WELL, kernel=replace(KERNEL, **changes)), check)
    assert (found.verdict, says in found.seen + found.advice) == (verdict, True), found


@pytest.mark.parametrize(
    ("seen", "verdict", "says"),
    [
        (Security(), "ok", "no SELinux, no AppArmor profile"),
        (Security("enforcing", logs_read=True), "ok", "SELinux enforcing; nothing was denied"),
        (Security("enforcing"), "ok", "only root can see"),
        (Security(apparmor="unconfined"), "ok", "no AppArmor profile"),
        (Security(apparmor="docker-default", logs_read=True), "ok", "AppArmor profile docker-default"),
        (Security("enforcing", denials=("avc: denied one", "avc: denied two")), "warning", "denied two"),
    ],
)
def test_security(seen: Security, verdict: str, says: str) -> None:
    """What SELinux or AppArmor has denied is shown, the last of it."""
    found = doctor.security(seen)
    assert (found.verdict, says in found.seen) == (verdict, True), found


@pytest.mark.parametrize(
    ("service", "version", "verdict", "says"),
    [
        ({}, None, "ok", "does not run"),
        ({}, 257, "ok", "systemd 257"),
        ({}, 252, "warning", "came with 254"),
        ({"managed": False}, 252, "ok", "came with 254"),
        ({"notifies": False}, 257, "warning", "Type=notify"),
        ({"managed": None, "notifies": None}, 257, "ok", "systemd 257"),
    ],
)
def test_systemd(service: dict[str, Any], version: int | None, verdict: str, says: str) -> None:
    """Too old for what it should keep, or a unit of the wrong type."""
    (found,) = doctor.systemd(replace(SERVICE, **service), replace(ENVIRONMENT, systemd=version))
    assert (found.verdict, says in found.seen + found.advice) == (verdict, True), found


@pytest.mark.parametrize(
    ("changes", "verdict", "says"),
    [
        ({}, "ok", ""),
        ({"python": (3, 14)}, "warning", "3.11 to 3.13"),
        ({"uvicorn": "0.39.0"}, "warning", "0.40 to 0.54"),
        ({"uvicorn": "1.0"}, "warning", "uvicorn 1.0"),
        ({"uvicorn": ""}, "ok", ""),
        ({"supervisord": "4.2.5"}, "problem", "virtual environment of its own"),
    ],
)
def test_packages(changes: dict[str, Any], verdict: str, says: str) -> None:
    """Versions that no test has seen, and the package that installs the same import name."""
    found = list(doctor.environment(replace(ENVIRONMENT, **changes)))
    assert max(found, key=lambda one: ["ok", "warning", "problem"].index(one.verdict)).verdict == verdict
    assert any(says in finding.seen + finding.advice for finding in found)
