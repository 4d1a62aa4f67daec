"""The command line: what it says, how it exits, where it takes its settings from."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from stillup.daemon import preflight
from tests.system.command_line import stillup
from tests.system.harness import APP, STILLUP, Service, eventually


def _process(
    *words: str, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """As in a shell: what a start of the command's own does to its words and to its exit code."""
    return subprocess.run(
        [STILLUP, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
    )


def _write_app(folder: Path) -> None:
    Service(folder).write()


COMMANDS = (
    *("run", "check", "status", "health", "reload", "scale", "stop", "rollback", "abort", "whoami", "trace", "doctor"),
    *("init", "migrate", "completion"),
)


@pytest.mark.parametrize("words", [(), *((command,) for command in COMMANDS)], ids=" ".join)
def test_help_teaches(words: tuple[str, ...]) -> None:
    """Every command has a help that says what it does; two of them in a process of their own."""
    shown = (_process if words in ((), ("run",)) else stillup)(*words, "--help")
    assert shown.returncode == 0
    assert "Usage: stillup" in shown.stdout
    assert len(shown.stdout.splitlines()) > 5


@pytest.mark.parametrize(
    "command", [("status",), ("reload",), ("scale", "2"), ("stop",), ("whoami",), ("abort",), ("trace",)]
)
def test_not_running_is_exit_3(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Without a supervisor every command says so in one line and exits 3; one of them in a process of its own."""
    shown = (_process if command == ("status",) else stillup)(*command, "--runtime-dir", str(tmp_path / "none"))
    assert shown.returncode == 3
    assert shown.stderr == f"stillup: no supervisor runs in {tmp_path}/none\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--bind", "nonsense"], "bind 'nonsense': expected HOST:PORT"),
        (["--bind", "::1:80"], "an IPv6 address stands in brackets"),
        (["--bind", "127.0.0.1:0", "--port", "1"], "--bind, --port each say where to listen"),
        (["--bind", os.fsdecode(b"unix:/run/\xff")], r"bind 'unix:/run/\udcff': an address is text in UTF-8"),
        (["--bind", f"127.0.0.1:{'1' * 4301}"], "expected HOST:PORT"),
        (["--bind", "unix:@"], "an abstract socket has a name"),
        (["--port", "99999"], "99999 is no port"),
        (["--workers", "0"], "at least 1 worker"),
        (["--workers", "1001"], "1000 are the most"),
        (["--max-worker-age", "soon"], "'soon' is not a valid float"),
        (["--max-worker-age", "0"], "0.0 is not in the range"),
        (["--max-worker-age", "inf"], "inf is no number of seconds"),
        (["--boot-timeout", "nan"], "nan is no number of seconds"),
        (["--hang-timeout", "1"], "1 is too short: 3 is the least, or 0 for never"),
        (["--hang-timeout", "-1"], "-1.0 is not in the range"),
        (["--probation", "-1"], "-1.0 is not in the range"),
        (["--probation", "nan"], "nan is no number of seconds"),
        (["--max-worker-rss", "512MB"], "'512MB' is no size: write bytes, or a number with K, M or G, such as 512M"),
        (["--max-worker-rss", "0"], "'0' is no size that memory can have"),
        (["--name", "a b"], "cannot be named 'a b'"),
        (["--health-path", "healthz"], "--health-path begins with /"),
        (["--bind", "a=127.0.0.1:0", "--bind", "a=[::1]:0"], "two binds are named 'a'"),
        (["--loop", "nosuch:loop", "--nosuch"], "No such option"),
    ],
)
def test_a_users_mistake_is_a_line_and_exit_2(tmp_path: Path, words: list[str], says: str) -> None:
    """A wrong option is explained without a traceback; exit 2. The first of them in a process of its own."""
    _write_app(tmp_path)
    shown = (_process if "nonsense" in words else stillup)("check", "main:app", *words, cwd=tmp_path)
    assert shown.returncode == 2
    assert says in shown.stderr
    assert "Traceback" not in shown.stderr


def test_check_says_ok(tmp_path: Path) -> None:
    """`check` loads the app and asks its health; it binds nothing, and starts no service."""
    _write_app(tmp_path)
    words = ["--health-path", "/healthz?token=secret", "--warm", "json,nosuch"]
    shown = _process("check", "main:app", *words, cwd=tmp_path, environment={"STILLUP_GENERATION": "0"})
    assert (shown.returncode, shown.stderr) == (0, "")
    warned, ok, probed = shown.stdout.splitlines()
    assert warned == "warning: --warm nosuch: ModuleNotFoundError: No module named 'nosuch'"
    assert ok.startswith("ok  ")
    assert probed == "    /healthz is healthy"


@pytest.mark.parametrize(
    ("source", "words", "says"),
    [
        ("import nosuch\n", [], "No module named 'nosuch'"),
        ("x = 1\n", [], 'Attribute "app" not found'),
        (APP.replace("200", "404"), ["--health-path", "/up"], "not healthy: /up answered 404 (5 tries in"),
        ("def app(environ, start_response): pass\n", [], "looks like WSGI: --interface wsgi"),
        (None, ["--directory", "gone"], "gone is not there"),
        (None, ["--python", "bin/nosuch"], "bin/nosuch is not there"),
        (None, ["--bind", "unix:/tmp/x.sock,user=nosuchuser"], "nosuchuser"),
        (None, ["-b", "unix:x.sock", "-b", "b=unix:./x.sock"], "'unix:x.sock', another bind of this service, has it"),
        (None, ["-b", "unix:@stillup-c", "-b", "b=unix:@stillup-c"], "another bind of this service, has it"),
    ],
)
def test_check_finds_what_is_wrong(tmp_path: Path, source: str | None, words: list[str], says: str) -> None:
    """`check` exits non-zero and names what would keep the service from starting."""
    _write_app(tmp_path)
    if source is not None:
        (tmp_path / "main.py").write_text(source)
    # What loads the app takes a process.
    command = stillup if source is None else _process
    shown = command("check", "main:app", *words, cwd=tmp_path, environment={"STILLUP_GENERATION": "0"})
    assert shown.returncode in (1, 2)
    assert says in shown.stderr


def test_check_finds_what_a_bind_lacks(tmp_path: Path) -> None:
    """`check` names an address that cannot be had, who has it, and what is missing on the way to a socket file."""
    _write_app(tmp_path)
    (tmp_path / "file").touch()
    name = tmp_path.name
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
        port = tcp.getsockname()[1]
        abstract.bind(f"\0{name}")
        for bind, says in (
            (f"127.0.0.1:{port}", f"127.0.0.1:{port}: address already in use by pid {os.getpid()} "),
            (f"unix:@{name}", f"unix:@{name}: address already in use"),
            (f"unix:{tmp_path}/gone/x.sock", f"its directory {tmp_path}/gone is not there; make it"),
            (f"unix:{tmp_path}/file/x.sock", "not a directory"),
            (f"unix:{tmp_path}/file", "the file there is no socket; move it away"),
            (f"unix:{tmp_path}/x.sock,group=nosuchgroup", "nosuchgroup"),
            (f"unix:/{'x' * 107}", "a Unix socket's path has at most 107 bytes"),
            ("203.0.113.1:0", "cannot assign requested address"),
            ("nosuch.invalid:80", "host 'nosuch.invalid' is not known"),
        ):
            shown = _check(tmp_path, "main:app", "--bind", bind)
            assert shown.returncode in (1, 2), bind
            assert says in shown.stderr, bind
        left = tmp_path / "left.sock"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(left))
            stale.listen()
            assert "somebody listens there" in _check(tmp_path, "main:app", "--bind", f"unix:{left}").stderr
        assert _check(tmp_path, "main:app", "--bind", f"unix:{left}").returncode == 0
        assert left.exists()


def test_check_where_ends_of_children_are_ignored(tmp_path: Path) -> None:
    """`check` learns how the process ended that loads the app, though it was started with SIGCHLD ignored."""
    _write_app(tmp_path)
    code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    argv = [sys.executable, "-c", code, STILLUP, "check", "main:app"]
    environment = {**os.environ, "STILLUP_GENERATION": "0"}
    shown = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")


def test_check_sends_nothing_to_the_terminal(tmp_path: Path) -> None:
    """What an app writes and raises while `check` loads it is shown, and its controls are not sent."""
    source = (
        r"print('\x1b[2Jout'); import sys; sys.stderr.write('\x9b1merr\n'); raise ValueError('\x1b]52;c;eA==\x07\nok')"
    )
    (tmp_path / "main.py").write_text(source)
    shown = _process("check", "main:app", cwd=tmp_path)
    assert shown.returncode == 1
    assert shown.stdout == "\\x1b[2Jout\n"
    assert shown.stderr.startswith("\\x9b1merr\n")
    assert shown.stderr.splitlines()[-1].startswith("stillup: the app could not be loaded: ValueError: ")
    assert all(char.isprintable() or char == "\n" for char in shown.stderr)


def test_a_directory_that_no_worker_could_be_told(tmp_path: Path) -> None:
    """A directory whose name is no UTF-8 is refused with its name, by `check` as it would be by a reload."""
    directory = tmp_path / os.fsdecode(b"releases\xff")
    directory.mkdir()
    _write_app(directory)
    shown = stillup("check", "main:app", "--directory", str(directory), cwd=tmp_path)
    assert shown.returncode == 1
    assert r"releases\udcff' is no UTF-8" in shown.stderr
    assert "Traceback" not in shown.stderr


def _check(folder: Path, *words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`check` of all but the app, which is not loaded."""
    with mock.patch.object(preflight, "_load"):
        return stillup("check", *words, cwd=folder, environment=environment)


def test_settings_come_from_file_environment_and_flags(tmp_path: Path) -> None:
    """Flags win over STILLUP_*, that over UVICORN_*, that over the file; WEB_CONCURRENCY is the default for workers."""
    (tmp_path / "stillup.toml").write_text('app = "main:app"\nworkers = 2\nbind = ["127.0.0.1:1"]\n')
    shown: list[str] = []
    for words, environment in (
        ((), {}),
        ((), {"UVICORN_WORKERS": "3"}),
        ((), {"UVICORN_WORKERS": "3", "STILLUP_WORKERS": "4"}),
        (("--workers", "5"), {"STILLUP_WORKERS": "4"}),
    ):
        result = _check(tmp_path, *words, environment=environment)
        assert result.returncode == 0, result.stderr
        shown.append(result.stdout.partition(" worker(s)")[0].split()[-1])
    assert shown == ["2", "3", "4", "5"]
    (tmp_path / "stillup.toml").unlink()
    assert " 7 worker" in _check(tmp_path, "main:app", environment={"WEB_CONCURRENCY": "7"}).stdout


def test_limits_come_from_file_and_environment(tmp_path: Path) -> None:
    """The limits of a worker's life are settings like all others: numbers or text in a file, text in a variable."""
    file = tmp_path / "stillup.toml"
    for text, says in (
        ('app = "main:app"\nmax-worker-age = 3600\nmax-worker-rss = 536870912\n', ""),
        ('app = "main:app"\nmax-worker-rss = "512M"\n', ""),
        ('app = "main:app"\nmax-worker-rss = "lots"\n', "'lots' is no size"),
        ('app = "main:app"\nmax-worker-rss = true\n', "'True' is no size"),
    ):
        file.write_text(text)
        shown = _check(tmp_path)
        assert (shown.returncode, says in shown.stderr) == (2 if says else 0, True), (text, shown)
    environment = {"STILLUP_MAX_WORKER_AGE": "3600", "STILLUP_MAX_WORKER_RSS": "1.5G"}
    file.unlink()
    shown = _check(tmp_path, "main:app", environment=environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    shown = _check(tmp_path, "main:app", environment={**environment, "STILLUP_MAX_WORKER_AGE": "old"})
    assert (shown.returncode, "'old' is not a valid float" in shown.stderr) == (2, True)


def test_a_wrong_key_in_a_file_is_an_error_with_its_place(tmp_path: Path) -> None:
    """An unknown key is named with file, line and the nearest that exists; pyproject.toml works too."""
    (tmp_path / "pyproject.toml").write_text('[tool.stillup]\napp = "main:app"\nwrokers = 2\n')
    shown = _check(tmp_path)
    assert shown.returncode == 2
    assert "pyproject.toml, line 3: unknown key 'wrokers'; did you mean 'workers'?" in shown.stderr
    (tmp_path / "broken.toml").write_text("app = \n")
    shown = _check(tmp_path, "--config", "broken.toml")
    assert shown.returncode == 2
    assert "broken.toml: " in shown.stderr


def test_an_unknown_variable_is_a_warning(tmp_path: Path) -> None:
    """A STILLUP_* variable that nothing reads is said, and does no harm."""
    shown = _check(tmp_path, "main:app", environment={"STILLUP_WROKERS": "1"})
    assert shown.returncode == 0
    assert "nothing reads the variable STILLUP_WROKERS" in shown.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has workers of another user")
def test_a_file_that_workers_can_write_is_a_warning(tmp_path: Path) -> None:
    """With --worker-user: what root does by the file at the next start would be theirs to say."""
    (tmp_path / "stillup.toml").write_text("workers = 1\n")
    words = ("main:app", "--worker-user", "12345", "--worker-group", "12345")
    says = f"stillup.toml decides what root does, and uid 12345, whose the workers are, can write to {tmp_path}"
    assert says not in _check(tmp_path, *words).stderr
    os.chown(tmp_path, 12345, 12345)
    assert says in _check(tmp_path, *words).stderr


def test_reload_shows_its_way(tmp_path: Path) -> None:
    """`reload` says from which generation to which, the boot, the cut-over, the outcome; --json gives the same."""
    binds = ("127.0.0.1:0", f"unix:{tmp_path}/own.sock")
    service = Service(tmp_path, "main:app", "--health-path", "/", workers=2, binds=binds)
    service.write()
    with service:
        shown = service.reload()
        assert shown.returncode == 0
        first, boot, cut, ok, *_ = (line for line in shown.stdout.splitlines() if not line.endswith(" ..."))
        assert "gen 1 -> 2" in first
        assert "2/2 ready, / 200" in boot
        assert "cut over" in cut
        assert ok.startswith("ok  gen 2 serving")
        service.client.scale(1)
        assert json.loads(service.cli("reload", "--json").stdout)["outcome"] == "succeeded"
        assert service.cli("reload", "--wait", "drained").stdout.rstrip().endswith("gen 3 has left")
        assert service.cli("reload", "--wait", "none").stdout == f"{service.status().name}  reload 5 is accepted\n"
        assert service.settled(5).outcome == "succeeded"
        assert "gen 5" in service.cli("status").stdout
        assert json.loads(service.cli("status", "--json").stdout)["state"] == "serving"
        checked = _check(
            tmp_path, "main:app", "--runtime-dir", str(service.runtime), "--bind", f"web={service.address()}"
        )
        assert "already in use" in checked.stderr, "what the service has by another name is taken"
        checked = _check(
            tmp_path, "main:app", "--runtime-dir", str(service.runtime), "--bind", f"unix:{tmp_path}/own.sock"
        )
        assert checked.returncode == 0, "what it has is its own"
        healthy = service.cli("health")
        assert (healthy.returncode, healthy.stdout) == (0, f"{service.status().name} serves\n")
        assert service.cli("stop").returncode == 0
        assert service.process.wait(20) == 0


def test_a_symlinked_directory_is_followed_at_each_reload(tmp_path: Path) -> None:
    """A release behind a symlink is looked up anew at each reload, kept for its generation, and shown."""
    for version in ("41", "42"):
        (tmp_path / "releases" / version).mkdir(parents=True)
        Service(tmp_path / "releases" / version).write(version=version)
    current = tmp_path / "current"
    current.symlink_to("releases/41")
    service = Service(tmp_path, "main:app", "--directory", "current", "--env-file", "app.env")
    for version in ("41", "42"):
        (tmp_path / "releases" / version / "app.env").write_text(f"RELEASE={version}\n")
    with service:
        assert service.get().endswith("41")
        current.unlink()
        current.symlink_to("releases/42")
        pid = service.workers()[0].pid
        for process in service.family():
            if process.pid == pid:
                process.kill()
        eventually(lambda: any(w.pid != pid for w in service.workers()), "a respawn")
        assert service.get().endswith("41"), "a respawn is of its generation's release"
        assert "releases/41 -> releases/42" in service.cli("reload", "--wait", "drained").stdout
        assert service.get().endswith("42")
        environment = Path(f"/proc/{service.workers()[0].pid}/environ").read_bytes()
        assert b"RELEASE=42" in environment
