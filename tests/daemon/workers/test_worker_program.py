"""What a worker is started as, and what is said when its interpreter cannot run one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import msgspec
import pytest

from stillup import __version__
from stillup.core.commands import Spawn
from stillup.core.model import Release
from stillup.core.values import replace
from stillup.core.worker_settings import WorkerSettings
from stillup.daemon.workers.worker_program import welcome, why_no_worker, worker_program
from stillup.host.accounts import Account

RELEASE = Release("main:app", "/srv/venv/bin/python", "/srv/app", environment={"A": "b", "STILLUP_NONCE": "another"})
SPAWN = Spawn(7, 3, 2, RELEASE, boot_timeout=60.0, drain_timeout=30.0)


@pytest.mark.parametrize("account", [None, Account(5, 6)])
def test_it_is_named_and_knows_its_way(account: Account | None) -> None:
    """The last word of its command line names service, generation and slot; nothing else stands there."""
    program = worker_program(SPAWN, "n", title="shop", account=account, handoff_path="/run/h.sock")
    assert program.argv == ("/srv/venv/bin/python", "-P", "-m", "stillup.worker", "shop:3.2")
    assert {**program.environment, **program.own_environment} == {
        "A": "b",
        "STILLUP_GENERATION": "3",
        "STILLUP_WORKER": "2",
        "STILLUP_HANDOFF": "/run/h.sock",
        "STILLUP_NONCE": "n",
    }
    assert program.account is account


@pytest.mark.parametrize(
    ("options", "there", "not_there"),
    [
        ({}, {"uvicorn.lifespan.on", "uvicorn.loops.uvloop", "uvicorn.protocols.websockets.auto"}, set()),
        ({"ws": "none", "loop": "asyncio"}, {"uvicorn.protocols.http.auto"}, {"uvicorn.loops.uvloop"}),
        ({"http": "h11", "ws": "wsproto"}, {"uvicorn.protocols.http.h11_impl"}, {"uvicorn.protocols.http.auto"}),
        ({"http": "main:Own", "ws": "main:Own"}, {"uvicorn.lifespan.on"}, {"uvicorn.protocols.http.auto"}),
    ],
)
def test_what_a_template_imports(options: dict[str, str], there: set[str], not_there: set[str]) -> None:
    """What uvicorn will, configured so; each of them is a module of uvicorn's."""
    program = worker_program(
        replace(SPAWN, release=replace(RELEASE, options=options)), "n", title="shop", account=None, handoff_path="/h"
    )
    assert there <= set(program.imports)
    assert not_there.isdisjoint(program.imports)
    assert all(importlib.util.find_spec(name) for name in program.imports)


def test_another_kind_of_worker_is_another_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process runs what the release's settings say, and an environment that lacks it is named."""
    monkeypatch.setattr(WorkerSettings, "module", "stillup.other")
    program = worker_program(SPAWN, "n", title="shop", account=None, handoff_path="/run/h.sock")
    assert program.argv[1:] == ("-P", "-m", "stillup.other", "shop:3.2")
    assert "has no stillup.other: install" in why_no_worker(SPAWN, "python: No module named stillup.other")


def test_a_welcome_leaves_time_to_boot() -> None:
    """However late it comes."""
    assert welcome(SPAWN, -5.0).boot_timeout > 0


def test_a_worker_knows_whether_its_probe_is_heard() -> None:
    """It is told that what its probe is answered is heard; a supervisor before this one says nothing, and means no."""
    assert welcome(SPAWN, 5.0).settings.hears_probe
    assert not msgspec.json.decode(b"{}", type=WorkerSettings).hears_probe


def test_an_environment_without_stillup_is_named() -> None:
    """What the interpreter itself says is recognised: without site-packages it has no stillup."""
    argv = [sys.executable, "-I", "-S", "-m", "stillup.worker"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    why = why_no_worker(SPAWN, done.stderr)
    assert why == f"/srv/venv/bin/python has no stillup.worker: install stillup {__version__} into its environment"


@pytest.mark.parametrize(
    "output",
    [
        "",
        "ModuleNotFoundError: No module named 'main'",
        "python: No module named stillup.worker\nTraceback: something else",
    ],
)
def test_other_failures_are_the_apps(output: str) -> None:
    """An app that lacks a module is not told to install stillup."""
    assert why_no_worker(SPAWN, output) == ""


def test_an_old_interpreter_is_named() -> None:
    """Python 3.10 does not know -P."""
    assert "older than Python 3.11" in why_no_worker(SPAWN, "Unknown option: -P\nusage: python [option] ...")
