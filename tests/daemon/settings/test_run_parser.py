"""The words of ``run`` and ``check``: its help in groups, gunicorn's words, what people write for an app."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from stillup.daemon import preflight
from stillup.daemon.run_commands import check, run
from stillup.daemon.settings import gunicorn_options, help_groups
from stillup.daemon.settings.config import make_settings
from stillup.daemon.settings.options import parameters
from stillup.host import memory_limit, processors


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; ``check`` reads the settings alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preflight, "check", lambda _: None)
    for name in ("GUNICORN_CMD_ARGS", "WEB_CONCURRENCY", "PORT", "STILLUP_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def asked(*words: str) -> Result:
    return CliRunner().invoke(check, words)


def test_gunicorns_command_line() -> None:
    """What means the same is taken: -w, -b, -n, -k with a worker class of uvicorn's, --access-logfile -."""
    shown = asked(
        *("main:app", "-w", "3", "-b", ":8000", "-b", "unix:/run/a.sock", "-n", "shop"),
        *("-k", "uvicorn.workers.UvicornWorker", "--access-logfile", "-", "--error-logfile=-"),
    )
    assert shown.exit_code == 0
    assert shown.output == "ok  shop: main:app on 0.0.0.0:8000, unix:/run/a.sock, 3 worker(s)\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("-k gevent", "every worker is uvicorn's; a WSGI app has --interface wsgi"),
        ("-k uvicorn_worker.UvicornH11Worker", "here it is --http h11 --loop asyncio"),
        ("--pid /run/x.pid", "--pid is gunicorn's: no counterpart: a second start is refused by a lock"),
        ("--pid=/run/x.pid", "'stillup ls' has the pid"),
        ("--user www-data", "--user is gunicorn's: here it is --worker-user"),
        ("-g www-data", "--group is gunicorn's: here it is --worker-group"),
        ("--daemon", "a service manager does that"),
        ("-D", "a service manager does that"),
        ("--spew", "--spew is gunicorn's: no counterpart"),
        ("--access-logfile /var/log/a", "the access log is part of the log"),
        ("-t 30", "here it is --hang-timeout"),
        ("--graceful-timeout 30", "here it is --timeout-graceful-shutdown"),
        ("--max-requests 9", "here it is --limit-max-requests"),
        ("-c gunicorn.conf.py", "'stillup migrate gunicorn.conf.py' writes a stillup.toml of it"),
        ("--config=python:conf", "'stillup migrate python:conf'"),
    ],
)
def test_gunicorns_words_are_answered_with_ours(words: str, says: str) -> None:
    """One line, and exit 2."""
    shown = asked("main:app", *words.split())
    assert (shown.exit_code, says in shown.output) == (2, True), shown.output


def test_what_gunicorn_reads_by_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gunicorn.conf.py here and GUNICORN_CMD_ARGS are warned of; the file not where there is one of ours."""
    (folder / "gunicorn.conf.py").write_text("workers = 2\n")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--workers 3")
    shown = asked("main:app")
    assert shown.exit_code == 0
    assert "warning: gunicorn.conf.py is not read; 'stillup migrate gunicorn.conf.py' writes" in shown.output
    assert "warning: GUNICORN_CMD_ARGS is not read; 'stillup migrate' writes" in shown.output
    (folder / "stillup.toml").write_text('app = "main:app"\n')
    assert "gunicorn.conf.py" not in asked().output


def test_every_counterpart_is_an_option() -> None:
    """What the table of gunicorn's settings leads to is there; and their words are never in a help."""
    keys = {option.removeprefix("--") for one in parameters() for option in one.opts} | {"app"}
    keys.add("limit-max-requests-jitter")  # which uvicorn 0.40 has not
    assert {setting.key for setting in gunicorn_options.SETTINGS.values() if setting.key} <= keys
    assert all(setting.advice for setting in gunicorn_options.SETTINGS.values())
    assert "--spew" not in CliRunner().invoke(run, ["--help"]).output


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("main.py:app", "an app is MODULE:ATTRIBUTE: main:app\n"),
        ("main.py", "an app is MODULE:ATTRIBUTE: main:app\n"),
        ("main", "'main' names no attribute, and an app is MODULE:ATTRIBUTE: main:app\n"),
        ("src/main:app", "src.main:app, or main:app --app-dir src\n"),
        ("./main.py:api", "an app is MODULE:ATTRIBUTE: main:api\n"),
        ("/srv/shop/main.py:app", "main:app --app-dir /srv/shop\n"),
        ("../main:app", "main:app --app-dir ..\n"),
        ("main:create_app()", "main:create_app with --factory"),
        (":app", "MODULE:ATTRIBUTE, such as main:app"),
        ("main:", "MODULE:ATTRIBUTE, such as main:app"),
    ],
)
def test_an_app_that_is_written_otherwise(app: str, says: str) -> None:
    """A file, a path, a call: what is meant is said."""
    shown = asked(app)
    assert (shown.exit_code, says in shown.output) == (2, True), shown.output


def test_no_app() -> None:
    """What it looks like, and what finds it."""
    assert "which app? MODULE:ATTRIBUTE, such as main:app; 'stillup init'" in asked().output


def test_a_module_that_is_called_py(folder: Path) -> None:
    """``main.py:app`` is right where ``main`` is a package."""
    (folder / "main").mkdir()
    assert asked("main.py:app").exit_code == 0


def test_a_slip_in_an_option() -> None:
    """The nearest of ours is named, none of gunicorn's."""
    shown = asked("main:app", "--relaod")
    assert "No such option" in shown.output
    assert "--reload" in shown.output
    assert "--spew" not in shown.output


def test_the_help_is_in_groups() -> None:
    """What to serve, rollout, limits, who may, uvicorn's own: each option under one heading, ours before uvicorn's."""
    shown = CliRunner().invoke(run, ["--help"]).output
    headings = ["What to serve:", "Rollout and stop:", "Limits:", "Who may, and as whom:", "uvicorn's own"]
    places = [shown.index(f"\n{heading}") for heading in headings]
    assert places == sorted(places)
    assert (
        shown.index("--bind ADDR") < shown.index("--boot-timeout") < shown.index("--viewer") < shown.index("--ws-max")
    )
    options = [one for one in parameters() if isinstance(one, click.Option) and not one.hidden]
    grouped = [one.name for _, members in help_groups.grouped(options) for one in members]
    assert sorted(map(str, grouped)) == sorted(str(one.name) for one in options)
    assert all(option.opts[0] in shown for option in options)


PLACES = [
    ('bind = "127.0.0.1:80"', "stillup.toml, line 3: 'bind' is a list: bind = [\"127.0.0.1:80\"]"),
    ('bind = ["nonsense"]', "bind 'nonsense': expected HOST:PORT"),
    ('workers = "two"', "'two' is not a valid integer"),
    ("workers = 1.5", "'workers' is a whole number, not 1.5"),
    ("workers = true", "'workers' is a whole number, not true"),
    ("reload = 3", "'reload' is true or false, not 3"),
    ("boot-timeout = true", "'boot-timeout' is a number, not true"),
    ("boot_timeout = -1", "-1.0 is not in the range"),
    ("health-path = true", "'health-path' is a text in quotes, not true"),
    ('health-path = "x"', "'x' is no path"),
    ("port = 99999", "99999 is no port"),
    ("workers = 0", "at least 1 worker"),
    ('name = "a b"', "cannot be named 'a b'"),
    ('max-worker-rss = "x"', "'x' is no size"),
    ('viewer = ["bob"]', "--viewer bob: it is uid:1000"),
    ('app = "main.py:app"', "an app is MODULE:ATTRIBUTE: main:app"),
    ("graceful_timeout = 3", "unknown key 'graceful_timeout', which is gunicorn's: here it is --timeout-graceful"),
    ("wrokers = 3", "unknown key 'wrokers'; did you mean 'workers'?"),
]


@pytest.mark.parametrize(("line", "says"), PLACES)
def test_an_error_of_the_file_has_its_place(folder: Path, line: str, says: str) -> None:
    """The file, the line, and what the key may be; whoever finds the error."""
    app = "" if line.startswith("app") else 'app = "main:app"'
    (folder / "stillup.toml").write_text(f"# the shop\n\n{line}\n{app}\n")
    shown = asked()
    assert (shown.exit_code, says in shown.output, "stillup.toml, line 3" in shown.output) == (2, True, True), (
        shown.output
    )


def test_an_error_of_a_variable_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who gave no --workers is told where the value is from."""
    monkeypatch.setenv("STILLUP_WORKERS", "two")
    assert "(STILLUP_WORKERS)" in asked("main:app").output
    monkeypatch.setenv("STILLUP_WORKERS", "0")
    assert "at least 1 worker (--workers) (STILLUP_WORKERS)" in asked("main:app").output


def test_a_flag_has_no_place(folder: Path) -> None:
    """It is in front of whoever gave it."""
    (folder / "stillup.toml").write_text("workers = 2\n")
    assert asked("main:app", "--workers", "0").output.endswith("a service needs at least 1 worker (--workers)\n")


def test_what_platforms_say(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PORT is where to listen where nothing else says it; WEB_CONCURRENCY=auto is as many as can run at a time."""
    monkeypatch.setattr(processors, "usable", lambda: 3)
    monkeypatch.setenv("WEB_CONCURRENCY", "auto")
    monkeypatch.setenv("PORT", "8080")
    assert asked("main:app").output.endswith(" on 0.0.0.0:8080, 3 worker(s)\n")
    assert " on 127.0.0.1:9000, " in asked("main:app", "--port", "9000").output
    (folder / "stillup.toml").write_text('bind = ["unix:web.sock"]\n')
    assert " on unix:web.sock, " in asked("main:app").output
    (folder / "stillup.toml").unlink()
    for name, text, says in (
        ("PORT", "http", "http"),
        ("WEB_CONCURRENCY", "many", "'many', not a number of workers, or auto"),
    ):
        monkeypatch.setenv(name, text)
        shown = asked("main:app")
        assert (shown.exit_code, says in shown.output) == (2, True), shown.output


@pytest.mark.parametrize(("text", "bytes_"), [("80%", 400_000_000), ("100%", 500_000_000), ("512M", 512 << 20)])
def test_a_share_of_the_memory(text: str, bytes_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what there is, by the workers that share it."""
    monkeypatch.setattr(memory_limit, "usable", lambda: 1_000_000_000)
    context = run.make_context("run", ["main:app", "--workers", "2", "--max-worker-rss", text])
    assert make_settings(context, context.params).worker.max_worker_rss == bytes_


@pytest.mark.parametrize("text", ["0%", "101%", "8.5%", "%", "-1%"])
def test_no_share_of_the_memory(text: str) -> None:
    """One line, and exit 2."""
    shown = asked("main:app", "--max-worker-rss", text)
    assert (shown.exit_code, f"'{text}' is no size" in shown.output) == (2, True), shown.output
