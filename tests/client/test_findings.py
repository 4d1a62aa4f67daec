"""What the doctor makes of what was seen: each finding by its facts."""

from __future__ import annotations

from typing import Any

import pytest

from stillup.client.doctor import findings as doctor
from stillup.client.doctor.facts import (
    ConnectResult,
    DirectoryFacts,
    EnvironmentFacts,
    Facts,
    FileFacts,
    KernelFacts,
    SecurityFacts,
    SupervisorFacts,
)
from stillup.client.doctor.findings import Finding, findings
from stillup.core.values import replace
from stillup.wire.api_shapes import FailureView
from tests.wire.example_fleets import BOOTING

RUN = "/run/stillup/web"
ROOT = FileFacts("web", "directory", 0o755, 0, 0, "root", "root")
CONTROL = FileFacts("control.sock", "socket", 0o660, 0, 0, "root", "root", ConnectResult.YES)
HANDOFF = FileFacts("handoff.sock", "socket", 0o600, 0, 0, "root", "root", ConnectResult.YES)
LOCK = FileFacts("lock", "file", 0o600, 0, 0, "root", "root")
PLACE = DirectoryFacts(RUN, ROOT, parent=replace(ROOT, name="stillup"), files=(CONTROL, HANDOFF, LOCK), lock_holder=70)
SERVICE = SupervisorFacts(
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
KERNEL = KernelFacts("6.1.0-1-amd64", somaxconn=4096, files=(1024, 524288), clock="tsc")
ENVIRONMENT = EnvironmentFacts((3, 12), "0.44.1", systemd=257)
WELL = Facts(0, PLACE, SERVICE, KERNEL, SecurityFacts(), ENVIRONMENT)
NONE = SupervisorFacts(runs=False)
EMPTY = DirectoryFacts(RUN, None)


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
    kernel = KernelFacts("", somaxconn=None, files=None, clock=None)
    facts = Facts(7, EMPTY, NONE, kernel, SecurityFacts(), EnvironmentFacts((3, 11), "", systemd=None))
    assert {finding.verdict for finding in findings(facts)} == {"ok"}


@pytest.mark.parametrize(
    ("place", "service", "verdict", "says", "advises"),
    [
        (PLACE, SERVICE, "ok", "stillup 0.1.0, pid 70, serving", ""),
        (PLACE, NONE, "problem", "pid 70 holds the lock", "starting, or stuck"),
        (replace(PLACE, files=(LOCK,)), NONE, "problem", "pid 70 holds the lock", "kill -USR2 70"),
        (replace(PLACE, lock_holder=None), NONE, "ok", "none runs in", ""),
        (replace(PLACE, lock_holder=None, orphans=("1.1 pid 7",)), NONE, "warning", "it has died", "takes them over"),
        (PLACE, SupervisorFacts(runs=True, trouble="no answer", pid=70), "problem", "no answer", "pid 70 is stopped"),
        (PLACE, SupervisorFacts(runs=True, trouble="garbled"), "problem", "garbled", "it is stopped"),
        (PLACE, SupervisorFacts(runs=True, trouble="uid 7 has no role", denied=True), "warning", "no role", "as root"),
        (EMPTY, SupervisorFacts(runs=False, trouble="odd"), "warning", "odd", ""),
    ],
)
def test_supervisor(place: DirectoryFacts, service: SupervisorFacts, verdict: str, says: str, advises: str) -> None:
    """Whether it answers; else what has become of it."""
    (found,) = doctor.supervisor(place, service)
    assert (found.verdict, says in found.seen, advises in found.advice) == (verdict, True, True), found


BOOT = replace(
    BOOTING,
    state="aborted",
    outcome="aborted",
    reason="lifespan",
    failure=FailureView("lifespan", "startup failed", "2.1", 104, ""),
)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        pytest.param(
            'psycopg.OperationalError: connection failed: connection to server at "10.0.0.5", port 5432 failed: '
            "FATAL:  sorry, too many clients already",
            "too many clients already",
            id="PostgreSQL",
        ),
        pytest.param(
            "asyncpg.exceptions.TooManyConnectionsError: remaining connection slots are reserved for "
            "non-replication superuser connections",
            "remaining connection slots are reserved",
            id="PostgreSQL 15",
        ),
        pytest.param(
            "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
            "remaining connection slots are reserved",
            id="PostgreSQL 16",
        ),
        pytest.param('FATAL:  too many connections for role "shop"', "too many connections", id="a role's limit"),
        pytest.param(
            "sqlalchemy.exc.OperationalError: (pymysql.err.OperationalError) (1040, 'Too many connections')",
            "Too many connections",
            id="MySQL",
        ),
        pytest.param(
            "MySQLdb.OperationalError: (1226, \"User 'shop' has exceeded the 'max_user_connections' resource "
            '(current value: 10)")',
            "max_user_connections",
            id="MySQL, a user's limit",
        ),
        pytest.param(
            "FATAL:  no more connections allowed (max_client_conn)", "no more connections allowed", id="PgBouncer"
        ),
    ],
)
def test_a_database_that_is_full(output: str, says: str) -> None:
    """A release that its database refused is one whose pool cannot double; one worker cannot roll, and fewer is all."""
    assert BOOT.failure is not None
    rejected = replace(BOOT, failure=replace(BOOT.failure, output=f"Traceback:\n  {output}\n"))
    (found,) = _about(replace(WELL, service=replace(SERVICE, rejected=rejected)), "rollout")
    assert (found.verdict, found.seen) == ("warning", f"gen 2 was rejected: its database refused 2.1 ('{says}')")
    assert found.advice.startswith("'stillup reload --strategy rolling --max-surge 0 --max-unavailable 1'")
    alone = replace(rejected, workers_wanted=1)
    (found,) = _about(replace(WELL, service=replace(SERVICE, rejected=alone)), "rollout")
    assert found.advice.startswith("make the pools smaller")


@pytest.mark.parametrize(
    ("births", "says", "has_advice"),
    [
        (("forked",), "workers are forked, and each imports the app", True),
        (("forked warm",), "workers are forked warm", False),
        (("preloaded",), "workers are preloaded", False),
        (("forked", "spawned"), "workers are forked and spawned, so that each imports everything by itself", True),
    ],
)
def test_how_workers_come_to_be(births: tuple[str, ...], says: str, has_advice: bool) -> None:
    """What could make reloads faster is said."""
    (found,) = _about(replace(WELL, service=replace(SERVICE, births=births)), "boot")
    assert (found.verdict, found.seen, bool(found.advice)) == ("ok", says, has_advice)


@pytest.mark.parametrize(
    ("unmoved", "advice"),
    [
        (("TLS",), "end TLS in a proxy before it"),
        (("--http zttp",), "say --http httptools"),
        (("--http zttp", "TLS"), "say --http httptools, and end TLS in a proxy before it"),
    ],
)
def test_what_does_not_move(unmoved: tuple[str, ...], advice: str) -> None:
    """Whoever counts on connections that outlive a reload is told."""
    assert _about(WELL, "crossing") == []
    (found,) = _about(replace(WELL, service=replace(SERVICE, unmoved=unmoved)), "crossing")
    assert (found.verdict, found.seen.startswith(f"with {' and '.join(unmoved)} ")) == ("warning", True)
    assert found.advice == f"if they are to move: {advice}"


def test_another_failure_is_not_the_databases() -> None:
    """What failed for another reason, or was called off, says nothing of a pool."""
    for rejected in (BOOT, replace(BOOT, failure=None)):
        assert _about(replace(WELL, service=replace(SERVICE, rejected=rejected)), "rollout") == []


def _place(path: str = RUN, **changes: Any) -> DirectoryFacts:
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
        (DirectoryFacts(RUN, None), NONE, 0, "ok", "makes it"),
        (DirectoryFacts(RUN, None, can_be_made=False), NONE, 7, "problem", "uid 7 may not make it"),
        (DirectoryFacts(f"/run/{'x' * 100}", None), NONE, 0, "problem", "a socket's path has at most 107"),
        (replace(_place(), hazards=("/srv is of uid 7",)), NONE, 0, "problem", "/srv is of uid 7"),
        (_place("/tmp/here"), NONE, 0, "warning", "PrivateTmp="),
        (replace(_place("/tmp/stillup-7/web"), parent=replace(ROOT, uid=8)), NONE, 7, "problem", "made it first"),
        (replace(_place("/tmp/stillup-7/web"), parent=replace(ROOT, uid=7)), NONE, 7, "warning", "PrivateTmp="),
        (replace(_place("/run/user/7/stillup/web"), lingers=False), NONE, 7, "warning", "enable-linger"),
        (replace(_place("/run/user/7/stillup/web"), lingers=True), NONE, 7, "ok", "0755"),
    ],
)
def test_directory(place: DirectoryFacts, service: SupervisorFacts, uid: int, verdict: str, says: str) -> None:
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
        ({"mode": 0o700}, {"answer": ConnectResult.REFUSED}, "warning", "the process that made it has died"),
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
    dead = tuple(replace(file, answer=ConnectResult.REFUSED) for file in (CONTROL, HANDOFF))
    found = list(doctor.sockets(replace(PLACE, files=(*dead, LOCK), lock_holder=None), NONE))
    assert [(finding.check, finding.verdict) for finding in found] == [
        ("control.sock", "warning"),
        ("handoff.sock", "warning"),
        ("lock", "ok"),
    ]
    assert all(finding.advice.startswith("nothing to do") for finding in found)
    (unseen,) = doctor.sockets(DirectoryFacts(RUN, None, files=(CONTROL,)), NONE)
    assert unseen.verdict == "ok"


def test_unreachable_listeners() -> None:
    """A listener whose socket file is gone is a problem, with the way out; one that is there is not spoken of."""
    assert not list(doctor.listeners(SERVICE))
    (found,) = doctor.listeners(replace(SERVICE, unreachable=("unix:/run/x.sock: its file is gone",)))
    assert (found.verdict, found.seen) == ("problem", "unix:/run/x.sock: its file is gone")
    assert "stillup reload" in found.advice


def test_role_of_who_may_be_a_worker() -> None:
    """Who could not be looked at is told that this, and not the role, is why there is no more than looking."""
    found = doctor.role(replace(SERVICE, role="viewer", unseen="its environment cannot be read"), 0)
    assert (found.verdict, "its environment cannot be read" in found.seen) == ("warning", True)
    assert "CAP_SYS_PTRACE" in found.advice


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
        (SecurityFacts(), "ok", "no SELinux, no AppArmor profile"),
        (SecurityFacts("enforcing", logs_read=True), "ok", "SELinux enforcing; nothing was denied"),
        (SecurityFacts("enforcing"), "ok", "only root can see"),
        (SecurityFacts(apparmor="unconfined"), "ok", "no AppArmor profile"),
        (SecurityFacts(apparmor="docker-default", logs_read=True), "ok", "AppArmor profile docker-default"),
        (SecurityFacts("enforcing", denials=("avc: denied one", "avc: denied two")), "warning", "denied two"),
    ],
)
def test_security(seen: SecurityFacts, verdict: str, says: str) -> None:
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
        ({"python": (3, 16)}, "warning", "3.11 to 3.15"),
        ({"uvicorn": "0.29.0"}, "warning", "0.30 to 0.54"),
        ({"uvicorn": "1.0"}, "warning", "uvicorn 1.0"),
        ({"uvicorn": ""}, "ok", ""),
    ],
)
def test_packages(changes: dict[str, Any], verdict: str, says: str) -> None:
    """Versions that no test has seen."""
    found = list(doctor.environment(replace(ENVIRONMENT, **changes)))
    assert max(found, key=lambda one: ["ok", "warning", "problem"].index(one.verdict)).verdict == verdict
    assert any(says in finding.seen + finding.advice for finding in found)


def test_a_unit_that_gives_a_stop_too_little_time() -> None:
    """It would kill the supervisor in the middle of it. What holds a listener, too, is named."""
    service = replace(SERVICE, stop_command="systemctl stop shop", stop_budget=40.0, stop_allowed=35.0)
    (short,) = doctor.stops(service)
    assert (short.verdict, short.advice) == ("warning", "TimeoutStopSec=40: 'stillup systemd install' writes it")
    assert list(doctor.stops(replace(service, stop_allowed=40.0))) == []
    assert list(doctor.stops(replace(service, stop_command=""))) == []
    announced = replace(service, stop_allowed=None, stop_delay=5.0, sockets=("shop.socket",))
    delay, socket = doctor.stops(announced)
    assert "nothing is kept over a restart" in delay.seen
    assert socket.advice == "to end the service, stop both: systemctl stop shop shop.socket"
