"""``stillup migrate``: what gunicorn is told, in our settings."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stillup.daemon import preflight
from stillup.daemon.migrate_command import migrate
from stillup.daemon.run_commands import check

CONF = """
import multiprocessing
import os

HELPER = 3
bind = ["127.0.0.1:9000", "unix:/run/x.sock", "fd://3", "0.0.0.0"]
workers = 2 + len([multiprocessing])
worker_class = "uvicorn.workers.UvicornWorker"
wsgi_app = "main:app"
timeout = 120
graceful_timeout = 25
keepalive = 5
max_requests = 1000
preload_app = True
worker_tmp_dir = "/dev/shm"
accesslog = "-"
loglevel = "INFO"
proc_name = "shop"
raw_env = ["TOKEN=secret", "B=2"]
umask = 0o007
daemon = False
forwarded_allow_ips = "*"
certfile = None

def post_fork(server, worker):
    server.log.info("forked")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)
    monkeypatch.syspath_prepend(".")  # so that what the command puts there is taken away
    return tmp_path


def asked(*words: str) -> Result:
    return CliRunner().invoke(migrate, words)


def written() -> dict[str, Any]:
    return tomllib.loads(Path("stillup.toml").read_text())


def test_a_whole_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has a counterpart is written, what has none is listed, functions too; ``check`` takes the file."""
    (folder / "gunicorn.conf.py").write_text(CONF)
    shown = asked("gunicorn.conf.py")
    assert shown.exit_code == 0, shown.output
    assert written() == {
        "app": "main:app",
        "bind": ["127.0.0.1:9000", "unix:/run/x.sock,mode=0660", "fd:3", "0.0.0.0:8000"],
        "name": "shop",
        "workers": 3,
        "hang-timeout": 120,
        "timeout-graceful-shutdown": 25,
        "timeout-keep-alive": 5,
        "limit-max-requests": 1000,
        "preload": True,
        "access-log": True,
        "log-level": "info",
        "forwarded-allow-ips": "*",
    }
    assert shown.output.startswith("wrote stillup.toml: 12 settings of gunicorn.conf.py\n")
    for left in (
        "  worker_tmp_dir       not needed: workers are heard over a socket",
        "  raw_env              TOKEN, B: have the variables in the environment, or in a file (--env-file)\n",
        "  umask                is in the mode of Unix binds",
        "  post_fork            is a function: the app's lifespan runs",
    ):
        assert left in shown.output
    for nothing in ("secret", "HELPER", "daemon", "certfile", "worker_class"):
        assert nothing not in shown.output + Path("stillup.toml").read_text()
    assert "#   worker_tmp_dir: not needed" in Path("stillup.toml").read_text()
    monkeypatch.setattr(preflight, "check", lambda _: None)
    checked = CliRunner().invoke(check, [])
    assert (checked.exit_code, "ok  shop: main:app on 127.0.0.1:9000" in checked.output) == (0, True), checked.output


@pytest.mark.parametrize(
    ("words", "bind"),
    [
        ("--umask 007", "unix:x.sock,mode=0660"),
        ("--umask 0o077", "unix:x.sock,mode=0600"),
        ("--umask 23", "unix:x.sock,mode=0640"),
        ("--umask 0", "unix:x.sock"),
        ("--umask soon", "unix:x.sock"),
        ("--user www-data", "unix:x.sock"),
        ("--umask 007 --user 1000 --group 33", "unix:x.sock,mode=0660,user=1000,group=33"),
        ("--umask 007 --user www-data --group adm", "unix:x.sock,mode=0660,user=www-data,group=adm"),
    ],
)
def test_who_may_connect_to_a_socket(words: str, bind: str) -> None:
    """No more than with gunicorn, whose umask its socket has, and whose workers' user and group it belongs to."""
    shown = asked("main:app", "--bind", "unix:x.sock", "--bind", "127.0.0.1:9000", *words.split())
    assert shown.exit_code == 0, shown.output
    assert written()["bind"] == [bind, "127.0.0.1:9000"]


def test_a_file_that_is_there_stays(folder: Path) -> None:
    """Exit 1; - prints it, and another name may be given."""
    (folder / "gunicorn.conf.py").write_text("workers = 4\n")
    (folder / "stillup.toml").write_text("# mine\n")
    shown = asked()
    assert (shown.exit_code, shown.output) == (
        1,
        "stillup: stillup.toml is there already, and is left as it is (--output)\n",
    )
    assert (folder / "stillup.toml").read_text() == "# mine\n"
    assert tomllib.loads(asked("-o", "-").output)["workers"] == 4
    assert asked("-o", "other.toml").output.endswith("next: stillup check --config other.toml\n")


def test_a_command_line_of_gunicorns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words in the place of gunicorn's own; they win over GUNICORN_CMD_ARGS, that over the file."""
    (folder / "conf.py").write_text("workers = 2\ntimeout = 1\nbind = ':80'\n")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--workers=3 --keep-alive 7")
    words = "-c conf.py -k uvicorn_worker.UvicornH11Worker -b :81 -b unix:a.sock --max-requests 0 main:create_app()"
    assert asked(*words.split()).exit_code == 0
    assert written() == {
        "app": "main:create_app",
        "factory": True,
        "bind": [":81", "unix:a.sock"],
        "workers": 3,
        "hang-timeout": 3,
        "timeout-keep-alive": 7,
        "http": "h11",
        "loop": "asyncio",
    }


def test_wsgi(folder: Path) -> None:
    """Without a worker class gunicorn serves WSGI, which is said; with one of WSGI it is set."""
    (folder / "gunicorn.conf.py").write_text("wsgi_app = 'shop.wsgi'\n")
    shown = asked("-o", "-")
    assert "worker_class: is not set, which is gunicorn's for WSGI" in shown.output
    assert tomllib.loads(shown.output)["app"] == "shop.wsgi:application"
    assert tomllib.loads(asked("-o", "-", "-k", "gthread").output)["interface"] == "wsgi"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nosuch\n", "gunicorn.conf.py, line 1: ModuleNotFoundError: No module named 'nosuch'"),
        ("a = 1\nb = (\n", "gunicorn.conf.py, line 2: "),
        ("raise SystemExit('x')", "gunicorn.conf.py, line 1: SystemExit: x"),
    ],
)
def test_a_file_that_fails(folder: Path, text: str, says: str) -> None:
    """One line with its place, exit 2, and nothing is written."""
    (folder / "gunicorn.conf.py").write_text(text)
    shown = asked()
    assert (shown.exit_code, says in shown.output, Path("stillup.toml").exists()) == (2, True, False), shown.output


def test_values_that_mean_nothing(folder: Path) -> None:
    """They are listed with why, and what is right is written."""
    (folder / "gunicorn.conf.py").write_text("workers = 'many'\nbind = '::1:80'\nproc_name = 'a b'\nbacklog = 9\n")
    shown = asked()
    assert written() == {"backlog": 9}
    for name in ("workers", "bind", "proc_name"):
        assert f"  {name:<20} '" in shown.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "there is no gunicorn.conf.py here"),
        (["gone.py"], "gone.py is not there"),
        (["--nosuch"], "--nosuch: gunicorn has no such option"),
        (["-w"], "gunicorn's words: "),
    ],
)
def test_a_callers_mistake(words: list[str], says: str) -> None:
    """One line, exit 2."""
    shown = asked(*words)
    assert (shown.exit_code, says in shown.output) == (2, True), shown.output
