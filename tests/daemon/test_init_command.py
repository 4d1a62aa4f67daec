"""``stillup init``: the app is found in the sources, and nothing of it is run."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stillup.daemon.init_command import init
from stillup.daemon.settings.app_search import search

FASTAPI = """
from fastapi import FastAPI
raise SystemExit("it was run")
app = FastAPI(title="shop")
@app.get("/healthz")
async def healthz(): ...
"""
DJANGO = "from django.core.asgi import get_asgi_application\napplication = get_asgi_application()\n"
DJANGO_WSGI = "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
FLASK = "import flask\n\nweb: flask.Flask = flask.Flask(__name__)\n"
BARE = "async def app(scope, receive, send): ...\nasync def other(scope): ...\n"
FLASK_FACTORY = "import flask\ndef create_app():\n    app = flask.Flask(__name__)\n    return app\n"
FACTORY = "from starlette.applications import Starlette\ndef create_app(settings=None):\n    return Starlette()\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    return tmp_path / "shop"


def asked(*words: str) -> Result:
    return CliRunner().invoke(init, words)


def write(folder: Path, path: str, text: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)


@pytest.mark.parametrize(
    ("path", "text", "settings", "what"),
    [
        ("main.py", FASTAPI, {"app": "main:app", "health-path": "/healthz"}, "FastAPI, main.py, line 4"),
        ("mysite/asgi.py", DJANGO, {"app": "mysite.asgi:application"}, "get_asgi_application, mysite/asgi.py, line 2"),
        ("web.py", FLASK, {"app": "web:web", "interface": "wsgi"}, "Flask, web.py, line 3"),
        ("src/shop/__init__.py", BARE, {"app": "shop:app", "app-dir": "src"}, "ASGI, src/shop/__init__.py, line 1"),
        ("shop/web.py", FACTORY, {"app": "shop.web:create_app", "factory": True}, "a factory, shop/web.py, line 2"),
        (
            "shop.py",
            FLASK_FACTORY,
            {"app": "shop:create_app", "factory": True, "interface": "wsgi"},
            "a factory, shop.py, line 2",
        ),
    ],
)
def test_what_is_found_is_written(folder: Path, path: str, text: str, settings: dict[str, object], what: str) -> None:
    """The app, what it takes to load it, and a path to probe; the file says what was found and where."""
    write(folder, path, text)
    shown = asked()
    assert shown.exit_code == 0, shown.output
    assert f"found {settings['app']} ({what})\nwrote stillup.toml\nnext: stillup check" in shown.output
    written = tomllib.loads((folder / "stillup.toml").read_text())
    assert written == {"name": "shop", "bind": ["127.0.0.1:8000"], "workers": 2, **settings}


def test_the_likeliest_of_several(folder: Path) -> None:
    """ASGI before WSGI; tests, environments and broken sources never; what is not taken is said."""
    write(folder, "mysite/wsgi.py", DJANGO_WSGI)
    write(folder, "mysite/asgi.py", DJANGO)
    write(folder, "tests/main.py", BARE)
    write(folder, ".venv/lib/main.py", BARE)
    write(folder, "broken.py", "app = (")
    assert [app.name for app in search(".")] == ["mysite.asgi:application", "mysite.wsgi:application"]
    assert "  not taken: mysite.wsgi:application (get_wsgi_application, mysite/wsgi.py, line 2)" in asked().output


def test_settings_that_are_there_stay(folder: Path) -> None:
    """A stillup.toml, or a table in pyproject.toml, is left as it is; exit 1."""
    write(folder, "main.py", BARE)
    for name, text in (("pyproject.toml", "[tool.stillup]\nworkers = 3\n"), ("stillup.toml", "workers = 3\n")):
        write(folder, name, text)
        shown = asked()
        assert (shown.exit_code, shown.output) == (1, f"stillup: {name} has settings already, and is left as it is\n")
        assert (folder / name).read_text() == text
    (folder / "stillup.toml").unlink()
    (folder / "pyproject.toml").unlink()
    (folder / "stillup.toml").symlink_to("/nonexistent/elsewhere")
    assert asked().output == "stillup: stillup.toml is there already, and is left as it is\n"


def test_nothing_is_found(folder: Path) -> None:
    """It says how to name the app, and takes one that is named."""
    shown = asked()
    assert (shown.exit_code, "'stillup init MODULE:ATTRIBUTE' says which" in shown.output) == (1, True)
    assert asked("main.py:app").exit_code == 2
    assert asked("web:api").exit_code == 0
    assert tomllib.loads((folder / "stillup.toml").read_text())["app"] == "web:api"


def test_an_environment_of_the_projects_own(folder: Path) -> None:
    """Where the project has one that is not ours, workers have its interpreter, which needs stillup too."""
    write(folder, "main.py", BARE)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    shown = asked()
    assert ".venv/bin/python, which needs stillup too: .venv/bin/python -m pip install stillup" in shown.output
    assert tomllib.loads((folder / "stillup.toml").read_text())["python"] == ".venv/bin/python"
