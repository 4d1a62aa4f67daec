"""How stillup is started and imported: the module, the command, the client."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import stillup.client
from stillup import __version__

COMMAND = str(Path(sys.executable).with_name("stillup"))
HEAVY = {"uvicorn", "starlette", "asyncio", "msgspec", "rich", "stillup.daemon", "stillup.client", "stillup.wire"}
"""What a command that needs none of it does not wait for."""


def run(*words: str, cwd: Path | None = None) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=30, cwd=cwd).stdout


@pytest.mark.parametrize("words", [(COMMAND,), (sys.executable, "-m", "stillup")])
def test_the_command_and_the_module_are_the_same(words: tuple[str, ...]) -> None:
    """``stillup`` and ``python -m stillup`` are one program, under one name."""
    assert run(*words, "--version") == f"stillup, version {__version__}\n"
    assert run(*words, "--help").startswith("Usage: ")


def test_the_module_takes_nothing_from_where_it_is_started(tmp_path: Path) -> None:
    """``python -m`` looks there first, and it may be a release's directory: what is imported is what is installed."""
    for name in ("click", "psutil", "msgspec", "dotenv"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('theirs')", encoding="utf-8")
    assert run(sys.executable, "-m", "stillup", "doctor", "--help", cwd=tmp_path).startswith("Usage: ")
    assert run(sys.executable, "-m", "stillup", "run", "--help", cwd=tmp_path).startswith("Usage: ")


def test_the_version_loads_nothing_else() -> None:
    """``stillup --version`` imports click and no more."""
    program = (
        "import atexit, sys, stillup.__main__ as entry\n"
        "atexit.register(lambda: print('\\n' + ' '.join(sys.modules)))\n"
        "entry.main()\n"
    )
    loaded = set(run(sys.executable, "-c", program, "--version").splitlines()[-1].split())
    assert "click" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_client_needs_no_server() -> None:
    """A script that deploys imports neither uvicorn nor the supervisor's own code."""
    loaded = set(run(sys.executable, "-c", "import sys, stillup.client; print(*sys.modules)").split())
    assert loaded.isdisjoint({"uvicorn", "starlette", "stillup.daemon", "stillup.worker", "stillup.asgi"})


def test_the_public_names_are_there() -> None:
    """``from stillup.client import Client`` is the public way; all that it promises is there, sorted."""
    names = stillup.client.__all__
    assert {"Client", "ProblemError", "NotRunningError", "Status"} <= set(names)
    assert sorted(names) == names
    assert all(hasattr(stillup.client, name) for name in names)
