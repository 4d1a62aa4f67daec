"""Two saves of one size within a second: the last one is what runs."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import SimpleNamespace

import pytest

from stillup.worker import fresh_sources
from stillup.worker.fresh_sources import RACY


@pytest.fixture(autouse=True)
def _writing_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python does by itself; and importlib's loader as it is."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(SourceFileLoader, "path_stats", SourceFileLoader.path_stats)


def saved(source: Path, version: int, at: float) -> None:
    source.write_text(f"VERSION = {version}\n")
    os.utime(source, (at, at))


def version(source: Path) -> int:
    """What a process that imports it now has."""
    spec = importlib.util.spec_from_file_location("fresh", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: int = module.VERSION
    return found


def bytecode(source: Path) -> Path:
    return Path(importlib.util.cache_from_source(str(source)))


def test_the_last_save_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python by itself runs the one before; it would go on with that until something else changes."""
    source, second = tmp_path / "source.py", int(time.time())
    monkeypatch.setattr(fresh_sources, "time", SimpleNamespace(time=lambda: second + 0.7))
    saved(source, 1, second + 0.1)
    assert version(source) == 1
    saved(source, 2, second + 0.6)
    assert version(source) == 1, "Python by itself"
    bytecode(source).unlink()
    fresh_sources.install([str(tmp_path)])
    saved(source, 1, second + 0.1)
    assert version(source) == 1
    saved(source, 2, second + 0.6)
    assert version(source) == 2
    assert not bytecode(source).exists(), "another may follow in this second"


def test_bytecode_of_somebody_else(tmp_path: Path) -> None:
    """What another program has compiled in the second of the save is not believed, and written anew."""
    source, second = tmp_path / "source.py", int(time.time()) - 60
    saved(source, 1, second + 0.1)
    version(source)
    os.utime(bytecode(source), (second + 0.5, second + 0.5))
    saved(source, 2, second + 0.6)
    fresh_sources.install([str(tmp_path)])
    assert version(source) == 2
    assert bytecode(source).stat().st_mtime >= second + RACY


def test_what_was_saved_long_ago_is_compiled_once(tmp_path: Path) -> None:
    """Its bytecode is used; and that of sources which nobody watches is as Python has it."""
    watched, other = tmp_path / "watched", tmp_path / "other"
    fresh_sources.install([str(watched)])
    for folder in (watched, other):
        folder.mkdir()
        source = folder / "source.py"
        saved(source, 1, time.time() - (60 if folder == watched else 0))
        version(source)
        kept = bytecode(source).read_bytes()
        assert version(source) == 1
        assert bytecode(source).read_bytes() == kept
