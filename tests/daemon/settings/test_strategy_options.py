"""How a new generation comes, by what was said at the start and in the file."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from stillup.core.setting_changes import Effect, SettingChange
from stillup.core.strategy import Strategy, StrategyKind
from stillup.daemon.run_commands import run
from stillup.daemon.settings import config
from stillup.daemon.settings.config import Settings, make_settings
from stillup.daemon.settings.config_reader import ConfigReader
from stillup.daemon.settings.run_parser import words_of
from stillup.errors import Refused, UsageError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def context(words: str) -> click.Context:
    return run.make_context("run", ["main:app", *words.split()])


def settings(words: str) -> Settings:
    made = context(words)
    return make_settings(made, made.params)


@pytest.mark.parametrize(
    ("words", "strategy"),
    [
        ("", Strategy(StrategyKind.BLUE_GREEN, 1, 0)),
        ("--strategy rolling", Strategy(StrategyKind.ROLLING, 1, 0)),
        ("-w 4 --strategy rolling --max-surge 0 --max-unavailable 3", Strategy(StrategyKind.ROLLING, 0, 3)),
        ("--max-surge 2", Strategy(StrategyKind.BLUE_GREEN, 2, 0)),
        ("--strategy canary", Strategy(StrategyKind.CANARY)),
        ("-w 4 --strategy canary --max-surge 1", Strategy(StrategyKind.CANARY, rolls=True)),
        (
            "--strategy canary --canary 10% --canary-time 900 --min-requests 7 --max-error-rate 0.5 --no-gate",
            Strategy(StrategyKind.CANARY, 1, 0, 10, True, 900.0, 900.0, 7, 0.5, gated=False),
        ),
        (
            "--canary 2 --canary-timeout 70 --max-latency-ratio 3",
            Strategy(canary=2, canary_timeout=70.0, max_latency_ratio=3.0),
        ),
    ],
)
def test_what_was_said(words: str, strategy: Strategy) -> None:
    """The bounds may be given without rolling: they are what one rolling reload of the service has."""
    assert settings(words).policy.strategy == strategy


def test_what_a_reload_may_choose(folder: Path) -> None:
    """Anything, unless something is named; a list in the file."""
    assert settings("").policy.allow_strategy == ()
    both = (StrategyKind.ROLLING, StrategyKind.CANARY)
    assert settings("--allow-strategy rolling --allow-strategy canary").policy.allow_strategy == both
    (folder / "stillup.toml").write_text('allow-strategy = ["rolling", "canary"]\ncanary = 3\n', encoding="utf-8")
    assert settings("").policy.allow_strategy == both
    assert settings("").policy.strategy.canary == 3


def test_by_a_variable_and_by_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As every option."""
    (folder / "stillup.toml").write_text('strategy = "rolling"\nmax-surge = 0\nworkers = 2\n', encoding="utf-8")
    monkeypatch.setenv("STILLUP_MAX_UNAVAILABLE", "1")
    assert settings("").policy.strategy == Strategy(StrategyKind.ROLLING, 0, 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("-w 2 --strategy rolling --max-surge 0", "take --max-surge 1, or --max-unavailable 1"),
        ("-w 1 --strategy rolling --max-surge 0 --max-unavailable 1", "leaves none of 1 to serve; take --max-surge 1"),
        ("-w 3 --strategy rolling --max-surge 0 --max-unavailable 3", "or --max-unavailable 2 at most"),
        ("-w 2 --strategy canary --max-surge 0", "take --max-surge 1, or --max-unavailable 1"),
        ("--canary some", "--canary some: it is a number of workers, such as 1, or a part of them, such as 10%"),
        ("--canary 0", "--canary 0 is not possible"),
        ("--canary-time 90 --canary-timeout 80", "--canary-time 90 with --canary-timeout 80"),
    ],
)
def test_what_could_never_move_is_refused_at_the_start(words: str, says: str) -> None:
    """With what could."""
    with pytest.raises(UsageError, match=says):
        settings(words)


@pytest.mark.parametrize("word", ["--max-surge=-1", "--max-surge=1001", "--max-unavailable=some", "--strategy=red"])
def test_what_is_no_strategy(word: str) -> None:
    """It is refused by the option's name."""
    with pytest.raises(click.UsageError) as raised:
        context(word)
    assert word.partition("=")[0] in raised.value.format_message()


def test_the_place_in_the_file_is_named(folder: Path) -> None:
    """Of what does not go together, each that is from the file."""
    text = 'app = "main:app"\nworkers = 1\nstrategy = "rolling"\nmax-surge = 0\nmax-unavailable = 1\n'
    (folder / "stillup.toml").write_text(text, encoding="utf-8")
    made = context("")
    with pytest.raises(UsageError) as raised:
        make_settings(made, made.params)
    assert "(stillup.toml, line 4, stillup.toml, line 5)" in config.placed(made, str(raised.value))


def test_streams_do_not_hold_up_what_waits_for_each_worker(folder: Path) -> None:
    """Without a surge the next worker starts when the one before has left; who says otherwise gets it."""
    rolling = "-w 2 --strategy rolling --max-surge 0 --max-unavailable 1"
    assert settings(rolling).policy.drain_timeout_stream == 30
    assert settings(rolling).worker.drain_timeout_stream == 30
    assert settings(f"{rolling} --drain-timeout-stream 600").policy.drain_timeout_stream == 600
    assert settings("-w 2 --strategy rolling").policy.drain_timeout_stream == 600
    assert settings("-w 2 --max-surge 0").policy.drain_timeout_stream == 600


def test_a_reload_applies_it(folder: Path) -> None:
    """Like every other part of the policy; what could never move refuses the reload, with its place."""
    file = folder / "stillup.toml"
    file.write_text("workers = 2\n", encoding="utf-8")
    made = context("")
    reader = ConfigReader(made, words_of(made), make_settings(made, made.params))
    file.write_text('workers = 2\nstrategy = "rolling"\n', encoding="utf-8")
    reading = reader.read()
    assert reading.changes == (SettingChange("strategy", Effect.APPLIED),)
    assert reading.settings.policy.strategy == Strategy(StrategyKind.ROLLING)
    file.write_text('workers = 2\nstrategy = "rolling"\nmax-surge = 0\n', encoding="utf-8")
    with pytest.raises(Refused, match=r"max-unavailable 1 \(.*stillup\.toml, line 3\)") as raised:
        reader.read()
    assert raised.value.code == "configuration"
