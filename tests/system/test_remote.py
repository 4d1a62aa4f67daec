"""``--remote ssh://``: a service on another host, by a real sshd, as whoever ssh logs in as."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest import mock

import msgspec
import psutil
import pytest

from stillup.__main__ import _COMMANDS
from stillup.client import Client
from stillup.client.remote_host import chosen
from tests.system import sshd
from tests.system.harness import DEADLINE, ROOT, STILLUP, Service, eventually, open_socket
from tests.system.other_user import let_through, open_folder
from tests.system.sshd import USERS, Host

pytestmark = [sshd.NEEDED, pytest.mark.timeout(300)]

HERE = {"run", "check", "init", "migrate", "systemd", "completion", "dial-stdio"}
"""Commands that ask no supervisor, or are what is asked."""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """One whom root, deploy and stranger may log in to; deploy's key may only dial."""
    with sshd.host() as host:
        yield host


@pytest.fixture
def service() -> Iterator[Service]:
    """A service of two workers, whose operator is deploy."""
    with open_folder() as folder:
        service = Service(folder, "main:app", "--operator", f"uid:{USERS['deploy']}", workers=2)
        service.write()
        with service:
            yield service


def test_every_command(host: Host, service: Service) -> None:
    """Each does there what it does here; what looks at its own host says how it is run there."""
    host.let_in("root")
    where = ("--remote", "ssh://web1", "--runtime-dir", str(service.runtime))
    words = {
        "status": (0, "serving"),
        "top --once": (0, "2 workers"),
        "health": (0, "on ssh://web1 serves"),
        "whoami": (0, "uid 0"),
        "history": (0, "serves"),
        "reload": (0, "gen 2"),
        "rollback --to 1": (0, "on ssh://web1 gen 2 is"),
        "scale 1": (0, "1"),
        "cordon": (0, "cordoned"),
        "uncordon": (0, "not cordoned any more"),
        "abort": (1, "no rollout"),
        "promote": (1, "no canary"),
        "events": (0, "gen 2"),
        "supervisor reexec": (0, f"pid {service.process.pid} runs stillup"),
        "doctor": (2, "'doctor' looks at the host that it runs on: ssh -- web1 'stillup doctor'"),
        "ls": (2, "'ls' looks at the host that it runs on: ssh -- web1 'stillup ls'"),
    }
    for command, (code, says) in words.items():
        about = where if command != "ls" else where[:2]
        done = host.stillup(*command.split(), *about)
        assert (done.returncode, says in done.stdout + done.stderr) == (code, True), (command, done)
    tracing = subprocess.Popen([STILLUP, "trace", *where, "--json"], env=host.environment, stdout=subprocess.PIPE)
    with tracing:
        assert tracing.stdout is not None
        assert json.loads(tracing.stdout.readline())["socket"] in ("control", "handoff")
        tracing.terminate()
    looking = subprocess.Popen([STILLUP, "dashboard", *where], env=host.environment, stdout=subprocess.PIPE, text=True)
    with looking:
        assert looking.stdout is not None
        assert looking.stdout.readline().startswith("http://127.0.0.1:")
        looking.send_signal(signal.SIGINT)
    assert looking.returncode == 0
    assert host.logins() == 1
    done = host.stillup("stop", *where)
    assert (done.returncode, "on ssh://web1  stopped" in done.stdout) == (0, True), done
    assert service.process.wait(DEADLINE) == 0
    done = host.stillup("status", *where)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"stillup: ssh://web1: no supervisor runs in {service.runtime}\n"
    assert {one.split()[0] for one in words} | {"trace", "stop", "dashboard"} | HERE == set(_COMMANDS)


def test_events_go_on_over_a_replacement(host: Host, service: Service) -> None:
    """Each once, until the service has stopped: who follows comes again when the way there ends."""
    host.let_in("root")
    argv = [STILLUP, "events", "--follow", "--json", "-H", "ssh://web1", "--runtime-dir", str(service.runtime)]
    with subprocess.Popen(argv, env=host.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as following:
        assert following.stdout is not None
        seen = [json.loads(following.stdout.readline())]
        service.client.reexec()
        service.reexecuted(1)
        service.client.reload(wait="cut-over")
        while seen[-1]["kind"] != "rollout.cut-over" or seen[-1]["rollout"] != 2:
            seen.append(json.loads(following.stdout.readline()))
        service.process.terminate()
        rest, error = following.communicate(timeout=DEADLINE)
        assert following.returncode == 0, error
    seen += [json.loads(line) for line in rest.splitlines()]
    assert [event["seq"] for event in seen] == list(range(1, len(seen) + 1))
    assert [event["kind"] for event in seen].count("supervisor.reexec") == 1
    assert seen[-1]["kind"] == "service.stopped"


def test_a_key_that_may_only_dial(host: Host, service: Service) -> None:
    """With it an operator does what an operator may, and nothing else on that host; a stranger may nothing."""
    let_through(service)
    dial = f"{STILLUP} dial-stdio --runtime-dir {service.runtime}"
    for user in ("deploy", "stranger"):
        host.let_in(user, only=dial)
    me = host.stillup("whoami", "-H", "ssh://deploy@web1", "--json")
    assert me.returncode == 0, (me, host.log.read_text())
    assert (json.loads(me.stdout)["uid"], json.loads(me.stdout)["role"]) == (USERS["deploy"], "operator")
    done = host.stillup("reload", "-H", "ssh://deploy@web1")
    assert (done.returncode, "gen 2 serving" in done.stdout) == (0, True), done
    done = host.stillup("stop", "-H", "ssh://deploy@web1")
    assert (done.returncode, "needs" in done.stderr) == (4, True), done
    done = host.stillup("reload", "-H", "ssh://deploy@web1", "--name", "another")
    assert (done.returncode, "this key is for" in done.stderr) == (2, True), done
    ssh = ["ssh", "deploy@web1", "touch", str(host.folder / "touched")]
    ran = subprocess.run(ssh, env=host.environment, input=b"", capture_output=True, timeout=DEADLINE, check=False)
    assert (ran.returncode, ran.stdout) == (0, b"")
    assert not (host.folder / "touched").exists()
    for words in (("status",), ("reload",), ("whoami",)):
        done = host.stillup(*words, "-H", "ssh://stranger@web1")
        assert (done.returncode, done.stdout) == (4 if words != ("whoami",) else 0, done.stdout), done
    (service.runtime / "control.sock").chmod(0o660)
    done = host.stillup("status", "-H", "ssh://stranger@web1")
    assert (done.returncode, done.stdout) == (4, "")
    assert f"ssh://stranger@web1: {service.runtime} is not open to uid {USERS['stranger']}" in done.stderr
    assert service.generations() == [2]


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [
        ("ssh://nobody-there", 1, "ssh://nobody-there cannot be reached: ssh: connect to host"),
        ("ssh://stranger@web1", 1, "Permission denied (publickey)"),
        ("web1", 2, "say ssh://[USER@]HOST[:PORT]"),
        ("ssh://-oProxyCommand=true", 2, "is no address of a host (--remote)"),
        ("ssh://root@web1:70000", 2, "is no address of a host (--remote)"),
    ],
)
def test_a_host_that_is_not_reached(host: Host, url: str, code: int, says: str) -> None:
    """What is said is ssh's own reason, in a line."""
    (host.folder / "keys" / "stranger").unlink(missing_ok=True)
    host.hang_up()
    done = host.stillup("status", "--remote", url, "--name", "shop")
    assert (done.returncode, done.stdout) == (code, ""), done
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == (1 if code != 2 else 4)


def test_who_is_meant_there(host: Host, service: Service) -> None:
    """Who does not say it means what a command there would; a variable is as good as a flag, a file of ours is not."""
    host.let_in("root")
    host.environment["STILLUP_REMOTE"] = "ssh://web1"
    try:
        done = host.stillup("status", "--runtime-dir", str(service.runtime), "--json")
        assert json.loads(done.stdout)["pid"] == service.process.pid
        for words in (["--name", "no-such-name"], []):
            done = host.stillup("health", *words)
            assert (done.returncode, done.stderr[:26]) == (1, "stillup: ssh://web1: no su"), done
        done = host.stillup("status", "--config", "x.toml")
        assert (done.returncode, "--config is a file of this host" in done.stderr) == (2, True)
        done = host.stillup("status", "--name", "a b")
        assert (done.returncode, "cannot be named" in done.stderr) == (2, True)
        done = host.stillup("ls")
        assert (done.returncode, "ssh -- web1 'stillup ls'" in done.stderr) == (2, True)
    finally:
        del host.environment["STILLUP_REMOTE"]


def test_a_host_without_stillup(tmp_path: Path) -> None:
    """It is said what is missing there, and here."""
    with sshd.host(path=()) as host:
        host.let_in("root")
        done = host.stillup("status", "-H", "ssh://web1")
        assert (done.returncode, "no 'stillup' in the PATH of a command by ssh there" in done.stderr) == (1, True), done
    host.environment["PATH"] = str(tmp_path)
    done = host.stillup("status", "-H", "ssh://web1")
    assert (done.returncode, done.stderr) == (1, "stillup: the command ssh (openssh-client) is not in PATH\n")


def test_nothing_is_left_there(host: Host, service: Service) -> None:
    """Who follows and is killed leaves no connection to the supervisor, and no process on that host."""
    host.let_in("root")
    argv = [STILLUP, "events", "--follow", "-H", "ssh://web1", "--runtime-dir", str(service.runtime)]
    with subprocess.Popen(argv, env=host.environment, stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        following.stdout.readline()
        following.kill()
    eventually(lambda: not _dialling(service), "nobody dials any more")


def _dialling(service: Service) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "dial-stdio" in process.cmdline() and f"--runtime-dir={service.runtime}" in process.cmdline():
                found.append(process.pid)
    return found


def test_a_stop_that_nobody_can_see_the_end_of(tmp_path: Path) -> None:
    """Where the way to that host breaks meanwhile, it is not said that the service has stopped."""
    service = Service(tmp_path, "tests.system.gated_app:app", "--app-dir", str(ROOT))
    with service, sshd.host() as host, closing(open_socket(service.address())) as slow:
        host.let_in("root")
        slow.sendall(b"GET /wait?gate=g HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually((tmp_path / "g.reached").exists, "a request is in progress")
        argv = [STILLUP, "stop", "-H", "ssh://web1", "--runtime-dir", str(service.runtime)]
        with subprocess.Popen(argv, env=host.environment, stderr=subprocess.PIPE, text=True) as stopping:
            eventually(lambda: service.status().state == "stopping", "it stops")
            host.end()
            _, error = stopping.communicate(timeout=DEADLINE)
        assert (stopping.returncode, "cannot be reached" in error) == (1, True), error
        (tmp_path / "g").touch()
        assert slow.recv(4096).startswith(b"HTTP/1.1 200")
        service.process.wait(DEADLINE)


def test_json_whatever_happens(host: Host) -> None:
    """A program that reads it gets a document for what is not reached, too."""
    done = host.stillup("status", "-H", "ssh://nobody-there", "--json")
    assert (done.returncode, json.loads(done.stdout)["type"]) == (1, "about:blank")


def test_a_command_that_looks_again_and_again(host: Host, service: Service) -> None:
    """It does so by one process on that host, not by one each time."""
    host.let_in("root")
    remote = chosen("ssh://web1", {})
    assert remote is not None
    with mock.patch.dict(os.environ, host.environment, clear=True):
        client = Client("", remote=msgspec.structs.replace(remote, runtime_dir=str(service.runtime)))
        client.status()
        (dialling,) = _dialling(service)
        assert [client.status().pid for _ in range(5)] == [service.process.pid] * 5
        assert _dialling(service) == [dialling]
        service.client.reexec()
        service.reexecuted(1)
        assert client.status().reexecs == 1
        assert _dialling(service) != [dialling]
