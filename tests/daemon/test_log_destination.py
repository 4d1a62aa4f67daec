"""Where stdout and stderr lead: looked at before a start, and kept by a program that is executed in another's place."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stillup.core.policy import Policy
from stillup.daemon import main, preflight
from stillup.errors import Refused

pytestmark = pytest.mark.usefixtures("no_leak")


def settings(file: Path | str) -> Any:
    rights = SimpleNamespace(worker=None)
    return SimpleNamespace(log=SimpleNamespace(file=str(file)), rights=rights, policy=Policy())


def test_it_is_looked_at_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ``check`` and by the trial of the program that is to go on; neither makes the file."""
    monkeypatch.setattr(preflight, "resolve", lambda _: SimpleNamespace(python=""))
    monkeypatch.setattr(preflight, "_load", lambda *_: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    missing = settings(tmp_path / "none" / "log")
    for look in (preflight.check, lambda one: preflight.try_out(one, cast("Any", None))):
        with pytest.raises(Refused, match=r"--log-file .*none/log: No such file"):
            look(missing)
    good = settings(tmp_path / "log")
    good.binds = ()
    preflight.check(good)
    assert not (tmp_path / "log").exists()


def test_it_is_kept_where_another_cannot_be_had(tmp_path: Path) -> None:
    """By a program that goes on in another's place, whose workers live; a start is refused."""
    before = [os.fstat(fd) for fd in (1, 2)]
    with pytest.raises(Refused, match="No such file"), main._log_file(settings(tmp_path / "none" / "log"), None):
        raise AssertionError
    state = cast("Any", object())
    with main._log_file(settings(tmp_path / "none" / "log"), state) as trouble:
        assert "none/log: No such file" in trouble
        assert [os.fstat(fd)[:3] for fd in (1, 2)] == [one[:3] for one in before]
    with main._log_file(settings(tmp_path / "log"), state) as trouble:
        assert trouble == ""
        os.write(1, b"said")
    assert (tmp_path / "log").read_text() == "said"
    with main._log_file(settings(""), None) as trouble:
        assert trouble == ""
    assert [os.fstat(fd)[:3] for fd in (1, 2)] == [one[:3] for one in before]
