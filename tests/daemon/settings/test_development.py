"""What is so under --reload, and where every interface is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillup.daemon.run_commands import check
from stillup.daemon.settings import config
from stillup.daemon.settings.config import Settings
from stillup.daemon.settings.development import LONGEST_BOOT
from stillup.host import terminal
from stillup.wire.address import TcpAddress


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the settings of a command line in a directory with an app."""
    monkeypatch.chdir(tmp_path)
    Path("main.py").write_text("app = None")
    for name in ("STILLUP_NAME", "WEB_CONCURRENCY", "JOURNAL_STREAM"):
        monkeypatch.delenv(name, raising=False)

    def make(*words: str) -> Settings:
        context = check.make_context("check", ["main:app", *words])
        return config.make_settings(context, context.params)

    return make


@pytest.mark.parametrize("host", ["", "::"])
def test_every_interface(host: str, settings: Any) -> None:
    """An empty host, and the one that uvicorn's people write."""
    (bind,) = settings("--host", host, "--port", "80").binds
    assert bind.address == TcpAddress("::", 80, is_dual=True)


def test_a_bind_is_what_it_says(settings: Any) -> None:
    """Of two that stand beside each other, each has its own kind of address."""
    ours, theirs = settings("--bind", "[::]:80", "--bind", ":80").binds
    assert (ours.address, theirs.address) == (TcpAddress("::", 80), TcpAddress("0.0.0.0", 80))


@pytest.mark.parametrize("in_terminal", [True, False])
def test_who_debugs_has_time(in_terminal: bool, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under --reload in a terminal a worker has that, and a boot the time that somebody needs who stops in it."""
    monkeypatch.setattr(terminal, "is_stdin", lambda: in_terminal)
    reloads, plain = settings("--reload"), settings()
    assert reloads.worker.has_terminal == in_terminal
    assert reloads.worker.log_capture != in_terminal
    assert reloads.worker.reload_dirs == (str(Path.cwd()),)
    assert reloads.policy.boot_timeout == (LONGEST_BOOT if in_terminal else 60)
    assert settings("--reload", "--boot-timeout", "5").policy.boot_timeout == 5
    logs = settings("--reload", "--log-file", "x").worker
    assert (logs.has_terminal, logs.log_capture) == (False, True), "nobody would see what is asked"
    assert (plain.worker.has_terminal, plain.worker.log_capture, plain.worker.reload_dirs) == (False, True, ())


def test_a_log_config_is_all_there_is(settings: Any) -> None:
    """Who brings one has said how a worker's log looks, and what becomes of what is printed."""
    worker = settings("--log-config", "log.yaml", "--log-format", "json").worker
    assert (worker.log_form, worker.log_capture) == ("", False)
    assert settings("--log-format", "json").worker.log_form == "json"
    assert settings("--log-file", "x").log.file == str(Path.cwd() / "x")


def test_colors(settings: Any) -> None:
    """Colors are uvicorn's option; a log file has none by itself."""
    assert settings("--use-colors").log.color
    assert not settings("--no-use-colors").log.color
    assert not settings("--log-file", "x").log.color
