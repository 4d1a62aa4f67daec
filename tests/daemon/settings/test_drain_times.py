"""How long each class may take, by what was given and what was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from stillup.daemon.run_commands import check
from stillup.daemon.settings import config
from stillup.daemon.settings.config import Settings
from stillup.host import processors


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def settings(*arguments: str) -> Settings:
    """What a start with these arguments comes to."""
    seen: list[Settings] = []

    def keep(**given: Any) -> None:
        seen.append(config.make_settings(click.get_current_context(), given))

    command = type(check)("check", params=check.params, callback=keep)
    command.main(["main:app", *arguments], standalone_mode=False)
    return seen[0]


@pytest.mark.parametrize(
    ("arguments", "times"),
    [
        ("", (30, 600, 0, 30)),
        ("--reload", (3, 3, 0, 3)),
        ("--drain-timeout 5", (5, 600, 0, 5)),
        ("--drain-timeout 5 --reload", (5, 5, 0, 5)),
        ("--drain-timeout 900", (900, 900, 0, 900)),
        ("--drain-timeout 5 --stop-timeout 8", (5, 600, 0, 8)),
        ("--timeout-graceful-shutdown 7", (7, 600, 0, 7)),
        ("--timeout-graceful-shutdown 7 --drain-timeout 5", (5, 600, 0, 7)),
        ("--timeout-graceful-shutdown 7 --drain-timeout 5 --stop-timeout 8", (5, 600, 0, 8)),
        ("--drain-timeout-stream 60 --drain-timeout-websocket 20 --reload", (3, 60, 20, 3)),
        ("--drain-timeout-stream 1", (30, 1, 0, 30)),
    ],
)
def test_what_each_class_gets(arguments: str, times: tuple[float, ...]) -> None:
    """The policy has them, and so has each worker, for a drain that it begins by itself."""
    found = settings(*arguments.split())
    policy, worker = found.policy, found.worker
    assert times == (
        policy.drain_timeout,
        policy.drain_timeout_stream,
        policy.drain_timeout_websocket,
        policy.stop_timeout,
    )
    assert times[1:] == (worker.drain_timeout_stream, worker.drain_timeout_websocket, worker.stop_timeout)


def test_the_other_ways_to_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a variable, and by a key of the file."""
    Path("stillup.toml").write_text("drain-timeout-stream = 90\nstop-timeout = 9.5\n", encoding="utf-8")
    monkeypatch.setenv("STILLUP_DRAIN_TIMEOUT_WEBSOCKET", "12")
    policy = settings("--stop-timeout", "8").policy
    assert (policy.drain_timeout_stream, policy.drain_timeout_websocket, policy.stop_timeout) == (90, 12, 8)


def test_how_many_may_drain() -> None:
    """Two, unless it is said otherwise; none is no number."""
    assert settings().policy.max_draining == 2
    assert settings("--max-draining", "5").policy.max_draining == 5
    with pytest.raises(click.UsageError):
        settings("--max-draining", "0")


def test_how_many_boot_at_once() -> None:
    """As many as there are processors for us, unless it is said otherwise; none is no number."""
    assert settings().policy.boot_concurrency == processors.usable()
    assert settings("--boot-concurrency", "7").policy.boot_concurrency == 7
    with pytest.raises(click.UsageError):
        settings("--boot-concurrency", "0")


@pytest.mark.parametrize("name", ["drain-timeout-stream", "drain-timeout-websocket", "stop-timeout"])
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "soon"])
def test_what_is_no_time(name: str, value: str) -> None:
    """What is no number of seconds is refused, by the option's name."""
    with pytest.raises(click.UsageError) as raised:
        settings(f"--{name}", value)
    assert f"--{name}" in raised.value.format_message()
