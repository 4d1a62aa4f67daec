"""Users, groups and ports that are not to be had, and a supervisor without rights of its own."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from stillup.core.access import Role
from stillup.daemon.state.own_sockets import TRIAL
from stillup.wire.api_operation import ApiSocket
from tests.host.tcp_ports import own_port
from tests.system.access.people import (
    ADMINS,
    PEOPLE,
    Somebody,
    differences,
    mode_of,
    needs_root,
    questions,
)
from tests.system.command_line import stillup
from tests.system.harness import DEADLINE, Service, pids

pytestmark = needs_root


def test_an_unprivileged_supervisor(folder: Path) -> None:
    """The supervisor's own user and root may do everything, a viewer looks, anybody else is told what is missing."""
    own = Somebody(20_010, 20_010, (), Role.ADMIN, Role.ADMIN)
    os.chown(folder, own.uid, own.gid)
    service = Service(folder, "main:app", "--viewer", "uid:20001", runtime=folder / "rt")
    service.argv = own.command(*service.argv)
    service.write()
    with service:
        service.logged("roles are given to others, and no socket is open to them")
        assert mode_of(service.runtime) == (0o700, own.uid, own.gid)
        asked = [one for one in questions(service, "0") if one[0] is ApiSocket.CONTROL]
        service.runtime.chmod(0o711)
        (service.runtime / ApiSocket.CONTROL).chmod(0o666)
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
            assert service.process.wait(DEADLINE) == 1
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
    Service(folder).write()
    done = stillup("check", "main:app", *words, cwd=folder)
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
    port = own_port()
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
        service.logged(f"metrics and probes: http://0.0.0.0:{port}/metrics")
        assert mode_of(runtime / ApiSocket.CONTROL) == (0o660, own.uid, own.groups[0])
        assert (service.process.pid, pids(service)) == before


def test_a_trial_sees_that_two_sockets_would_have_one_port(folder: Path) -> None:
    """One that is kept is in the other's way; two that change places are not. Refused, all goes on."""
    ports = sorted({own_port(), own_port()})
    service = Service(folder, "main:app")
    service.write()
    settings = folder / "stillup.toml"
    admin, agent = (f"127.0.0.1:{port}" for port in ports)
    settings.write_text(f'admin_bind = "{admin}"\n')
    with service:
        before = (service.process.pid, pids(service))
        for text, why in (
            (f'agent_bind = "{admin}"', "--admin-bind is there"),
            (f'agent_bind = "0.0.0.0:{ports[0]}"', "address already in use"),
        ):
            settings.write_text(f'admin_bind = "{admin}"\n{text}\n')
            done = service.cli("supervisor", "reexec")
            assert (done.returncode, why in done.stderr) == (1, True), done.stderr
        for first, second in ((admin, agent), (agent, admin)):
            settings.write_text(f'admin_bind = "{first}"\nagent_bind = "{second}"\n')
            assert service.cli("supervisor", "reexec").returncode == 0
            host, _, port = second.rpartition(":")
            with socket.create_connection((host, int(port)), DEADLINE) as asked:
                assert asked.makefile().read() == "up 100%\n"
        assert (service.process.pid, pids(service)) == before
