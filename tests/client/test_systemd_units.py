"""The units that `stillup systemd` writes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from stillup.client import systemd_units
from stillup.client.systemd_units import HARDENING, SERVICE, SOCKET, units
from tests.system.harness import STILLUP


def test_the_paths_are_those_of_the_stillup_that_is_asked() -> None:
    """Not what a search path leads to, and nothing of the packaged ones is left."""
    (service,) = units(user=False, run_as="shop", socket=False, hardened=False).values()
    assert service.count(STILLUP) == 3
    assert "/opt/stillup" not in service
    assert "User=shop\n" in service
    assert "--config /etc/stillup/%i.toml" in service


def test_a_users_own() -> None:
    """It has nobody else's rights to take, no limits to raise, and its own places."""
    files = units(user=True, run_as="stillup", socket=True, hardened=False)
    assert set(files) == {SERVICE, SOCKET}
    assert "User=" not in files[SERVICE]
    assert "LimitNOFILE" not in files[SERVICE]
    assert "--config %E/stillup/%i.toml" in files[SERVICE]
    assert "WantedBy=default.target" in files[SERVICE]
    assert "ListenStream=%t/stillup-%i.sock" in files[SOCKET]
    assert "SocketGroup" not in files[SOCKET]


def test_what_was_asked_for() -> None:
    """The socket and the drop-in only on request."""
    assert set(units(user=False, run_as="x", socket=False, hardened=True)) == {SERVICE, f"{SERVICE}.d/{HARDENING}"}


def test_show_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints each file under the path that it would have."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    done = CliRunner().invoke(systemd_units.systemd, ["show", "--user"])
    assert done.exit_code == 0
    assert f"# {tmp_path}/systemd/user/{SERVICE}\n" in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_user_that_is_not_there() -> None:
    """It is said how to make one, before anything is written."""
    done = CliRunner().invoke(systemd_units.systemd, ["install", "--run-as", "no-such-user"])
    assert done.exit_code == 2
    assert "there is no user 'no-such-user'" in done.output
    assert "useradd" in done.output


@pytest.mark.parametrize("what", ["show", "install"])
def test_a_users_own_cannot_be_hardened(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That would put it into a user namespace, which hides who calls; it is said before anything is written."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    done = CliRunner().invoke(systemd_units.systemd, [what, "--user", "--hardened"])
    assert done.exit_code == 2
    assert "PrivateUsers=" in done.output
    assert list(tmp_path.iterdir()) == []


def test_where_nobody_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the file and the way out."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "/proc")
    done = CliRunner().invoke(systemd_units.systemd, ["install", "--user"])
    assert done.exit_code == 1
    assert "/proc/systemd" in done.output
    assert "--user" in done.output


def test_without_a_command_beside_the_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The one on the path, or else the module of this interpreter."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    (service,) = units(user=False, run_as="shop", socket=False, hardened=False).values()
    assert f"ExecStart={tmp_path}/python -m stillup run" in service


@pytest.mark.parametrize("folder", ["my apps", "100%", "a;b", "$HOME", "it's", "a\nExecStartPre=x"])
def test_a_path_that_would_mean_another(folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of /srv/my apps/stillup systemd would run /srv/my: as root, and whoever made that."""
    (tmp_path / folder).mkdir()
    monkeypatch.setattr(sys, "executable", str(tmp_path / folder / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(systemd_units.systemd, ["show"])
    assert done.exit_code == 1
    assert "for another command" in done.output


@pytest.mark.parametrize("name", ["", "x\nExecStartPre=/bin/sh", "a b", "%i", "-x"])
def test_a_user_that_is_no_name(name: str) -> None:
    """It begins no line of its own in a unit."""
    done = CliRunner().invoke(systemd_units.systemd, ["show", "--run-as", name])
    assert done.exit_code == 2
    assert "is no name of a user" in done.output


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", ""),
        ("stop-delay = 10\n", "45"),
        ("drain-timeout = 8\n", "13"),
        ("drain-timeout = 8\nstop-timeout = 20.5\n", "25.5"),
        ("timeout-graceful-shutdown = 3\nstop-delay = 2\n", "10"),
        ("drain-timeout = 30\ntimeout-graceful-shutdown = 120\n", "125"),
        ("drain_timeout = 8\nstop_delay = 2\nstop_timeout = 20\n", "27"),
        ('stop-timeout = "60"\n', "65"),
        ('stop-timeout = "soon"\n', ""),
        ("no = [toml\n", ""),
    ],
)
def test_the_time_to_stop_in(tmp_path: Path, text: str, seconds: str) -> None:
    """Each service that has another than the template's gets a drop-in; a file that is wrong is told of elsewhere."""
    (tmp_path / "shop.toml").write_text(text)
    wanted = {"stillup@shop.service.d/stop.conf": f"TimeoutStopSec={seconds}\n"} if seconds else {}
    found = systemd_units.stop_drop_ins(tmp_path, tmp_path / "none")
    assert found.keys() == wanted.keys()
    assert all(found[name].endswith(text) for name, text in wanted.items())


def test_what_was_other_and_is_not_any_more(tmp_path: Path) -> None:
    """A drop-in that is there is kept true."""
    (tmp_path / "shop.toml").write_text("")
    folder = tmp_path / "stillup@shop.service.d"
    folder.mkdir()
    (folder / "stop.conf").write_text("[Service]\nTimeoutStopSec=90\n")
    (text,) = systemd_units.stop_drop_ins(tmp_path, tmp_path).values()
    assert text.endswith("TimeoutStopSec=35\n")
