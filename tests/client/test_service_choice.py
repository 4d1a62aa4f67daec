"""A command means the service that ``stillup run`` would be here, and acts on no other one instead."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from stillup.__main__ import main
from stillup.client import NotRunningError, service_lookup
from stillup.client.service_lookup import find, look_up
from stillup.errors import UsageError
from stillup.wire import runtime_paths

LISTEN = """
import os, socket, sys
os.makedirs(sys.argv[1])
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1] + "/control.sock")
listener.listen()
print(flush=True)
sys.stdin.read()
"""

Start = Callable[[str, Path], str]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this user's services; the working directory is another one, ``home``."""
    for name in ("STILLUP_NAME", "STILLUP_RUNTIME_DIR", "STILLUP_CONFIG", "STILLUP_DIRECTORY", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "run"
    folder.mkdir()
    for module in (service_lookup, runtime_paths):
        monkeypatch.setattr(module, "SYSTEM", str(folder))
    monkeypatch.setattr(service_lookup, "bases", lambda *_: [str(folder)])
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    return folder


@pytest.fixture
def start(base: Path, tmp_path: Path) -> Iterator[Start]:
    """Have a service of that name listen whose supervisor was started in a directory."""
    started = []

    def begin(name: str, directory: Path) -> str:
        directory.mkdir(exist_ok=True)
        place = str(base / name)
        pipe = subprocess.PIPE
        argv = [sys.executable, "-I", "-S", "-c", LISTEN, place]
        process = subprocess.Popen(argv, cwd=directory, stdin=pipe, stdout=pipe)
        started.append(process)
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 20)[0], name
        return place

    yield begin
    for process in started:
        process.communicate()


def test_the_only_one_is_not_meant_where_the_file_names_another(base: Path, tmp_path: Path, start: Start) -> None:
    """With ``name = "staging"`` here, prod is left alone: the message names both, and who says it. Exit 3."""
    start("prod", tmp_path / "elsewhere")
    Path("stillup.toml").write_text('app = "main:app"\nname = "staging"\n')
    shown = CliRunner().invoke(main, ["stop"])
    assert shown.exit_code == 3
    assert "no supervisor runs in" in shown.output
    assert "('staging' by stillup.toml, line 2); what runs is 'prod': say so with --name" in shown.output


def test_the_order_is_that_of_run(base: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag wins over STILLUP_NAME, that over the file, that over the directory; --config names another file."""
    place = {name: start(name, tmp_path / "elsewhere") for name in ("flag", "variable", "file", "other", "home")}
    assert find(None, None) == place["home"]
    Path("pyproject.toml").write_text('[tool.stillup]\nname = "file"\n')
    Path("other.toml").write_text('name = "other"\n')
    assert find(None, None) == place["file"]
    assert find(None, None, config="other.toml") == place["other"]
    monkeypatch.setenv("STILLUP_CONFIG", "other.toml")
    assert find(None, None) == place["other"]
    monkeypatch.setenv("STILLUP_NAME", "variable")
    assert find(None, None) == place["variable"]
    assert find("flag", None) == place["flag"]


def test_the_directorys_own_of_two(base: Path, tmp_path: Path, start: Start) -> None:
    """Two services and no name: the one that is called like the directory; else the one that was started in it."""
    start("prod", tmp_path / "elsewhere")
    hello = start("hello", tmp_path / "home")
    assert look_up(None, None).name == "hello"
    home = start("home", tmp_path / "home")
    assert find(None, None) == home
    os.chdir(tmp_path / "elsewhere")
    assert look_up(None, None).name == "prod"
    assert find("hello", None) == hello


def test_where_none_is_the_directorys_own(base: Path, tmp_path: Path, start: Start) -> None:
    """One or several run, and none of them is this directory's: none is acted on, and those that run are named."""
    start("prod", tmp_path / "elsewhere")
    with pytest.raises(NotRunningError, match=r"none is named 'home' or was started in it; what runs is 'prod'"):
        find(None, None)
    start("admin", tmp_path / "elsewhere")
    with pytest.raises(NotRunningError, match=r"what runs is 'admin', 'prod': --name says"):
        find(None, None)
    os.chdir(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"say which with --name: admin, prod"):
        find(None, None)


def test_one_of_the_name_and_one_that_was_started_here(base: Path, tmp_path: Path, start: Start) -> None:
    """Either may be meant, so neither is acted on without a name."""
    start("home", tmp_path / "elsewhere")
    start("hello", tmp_path / "home")
    with pytest.raises(UsageError, match=r"several services of this directory run.*home, hello"):
        find(None, None)


def test_a_directory_that_the_file_names(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``runtime-dir`` of the file is where the service is; one of another name there is refused, with both names."""
    called = {"rt": "shop"}
    monkeypatch.setattr(service_lookup, "_name_at", called.get)
    Path("stillup.toml").write_text('name = "shop"\nruntime_dir = "rt"\n')
    assert look_up(None, None) == service_lookup.Found("rt", "shop", "stillup.toml, line 1")
    called["rt"] = "prod"
    with pytest.raises(NotRunningError, match=r"'shop' is meant \(stillup.toml, line 1\), and 'prod' runs in rt \(st"):
        find(None, None)
    assert find("prod", None) == "rt"
    with pytest.raises(NotRunningError, match=r"'nosuch' is meant \(--name\), and 'prod' runs in rt \(stillup.toml, l"):
        find("nosuch", None)
    with pytest.raises(NotRunningError, match=r"'nosuch' is meant \(--name\), and 'prod' runs in rt \(--runtime-dir\)"):
        find("nosuch", "rt")
    assert find(None, "rt") == "rt", "who names the directory means it"
    monkeypatch.setenv("STILLUP_RUNTIME_DIR", "/run/other")
    assert find(None, None) == "/run/other", "the variable is stronger than the file's name"


def test_a_name_that_runs_elsewhere(base: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--name wins over a file's runtime-dir where another service is, if one of that name runs where they are."""
    monkeypatch.setattr(service_lookup, "_name_at", {"rt": "shop"}.get)
    Path("stillup.toml").write_text('name = "shop"\nruntime-dir = "rt"\n')
    prod = start("prod", tmp_path / "elsewhere")
    assert find("prod", None) == prod


def test_a_units_own_commands(base: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ExecReload= means the unit's own supervisor, whatever its directory's file says; a flag may name another one."""
    monkeypatch.setattr(service_lookup, "_name_at", {"/run/one": "one"}.get)
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/one:/run/two")
    Path("stillup.toml").write_text('name = "development"\n')
    assert find(None, None) == find("one", None) == "/run/one"
    Path("stillup.toml").write_text("name = \n")
    assert find(None, None) == "/run/one", "a file that is broken is none of the unit's"
    other = start("other", tmp_path / "elsewhere")
    assert find("other", None) == other
    Path("stillup.toml").write_text('runtime-dir = "rt"\n')
    assert find(None, None) == "rt", "where the unit's supervisor is if nobody is in the unit's directory"
    monkeypatch.setenv("RUNTIME_DIRECTORY", other)
    assert find(None, None) == other
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/one")
    Path("stillup.toml").unlink()
    with pytest.raises(NotRunningError, match=r"'nosuch' is meant \(--name\), and 'one' runs in /run/one \(RUNTIME_D"):
        find("nosuch", None)


@pytest.mark.parametrize(
    ("text", "says"),
    [("name = \n", "stillup.toml: "), ("a = 1\nname = 7\n", "stillup.toml, line 2: 'name' is a text in quotes, not 7")],
)
def test_a_file_that_is_broken(base: Path, start: Start, tmp_path: Path, text: str, says: str) -> None:
    """It cannot say which service is meant: the command says so, exit 2, and takes --name."""
    Path("stillup.toml").write_text(text)
    shown = CliRunner().invoke(main, ["status"])
    assert (shown.exit_code, says in shown.output, "--name or --runtime-dir says which" in shown.output) == (
        2,
        True,
        True,
    )
    assert find("prod", None) == str(base / "prod")


def test_a_name_that_does_not_run(base: Path, start: Start, tmp_path: Path) -> None:
    """A name with a slip: the services that run are named."""
    start("prod", tmp_path / "elsewhere")
    shown = CliRunner().invoke(main, ["status", "--name", "prdo"])
    assert shown.exit_code == 3
    assert shown.output.endswith("/prdo; what runs is 'prod': say so with --name\n")


def test_the_directory_of_the_file_gives_the_name(base: Path, start: Start, tmp_path: Path) -> None:
    """Without a name a service has that of its --directory, as 'run' has it."""
    current = start("current", tmp_path / "elsewhere")
    Path("stillup.toml").write_text('directory = "/srv/shop/current"\n')
    assert find(None, None) == current
