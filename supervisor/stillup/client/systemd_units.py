"""``stillup systemd``: units for a service of one's own, with the paths of the stillup that is asked."""

from __future__ import annotations

import math
import os
import pwd
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

import click

from stillup.client.plain_output import echo, echo_lines
from stillup.core.policy import STOP_MARGIN

SERVICE: Final = "stillup@.service"
SOCKET: Final = "stillup@.socket"
HARDENING: Final = "hardening.conf"
_COMMAND: Final = "/opt/stillup/bin/stillup"
"""What the units of the package run."""
STOP_TIMEOUT: Final = 30.0
"""Seconds of a stop, unless the configuration says otherwise."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./@:+,=~-]+")
"""A path that systemd and sh(1) read as it is: no blank ends a word in it, no % begins a specifier."""
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")


def units(*, user: bool, run_as: str, socket: bool, hardened: bool) -> dict[str, str]:
    """The text of each file, by its path below the directory of units.

    Args:
        user: for the user's own service manager.
        run_as: whose rights the service has; not for a user's manager, which has no others to give.
        socket: with socket activation.
        hardened: with the drop-in.
    """
    service = _packaged(SERVICE).replace(_COMMAND, _command())
    if user:
        service = service.replace("User=stillup\n", "")
        service = service.replace("/etc/stillup/%i.toml", "%E/stillup/%i.toml")
        service = service.replace("WantedBy=multi-user.target", "WantedBy=default.target")
        # More than the manager itself may have would fail the start.
        service = service.replace("LimitNOFILE=524288\n", "")
    else:
        service = service.replace("User=stillup\n", f"User={run_as}\n")
    files = {SERVICE: service}
    if socket:
        text = _packaged(SOCKET)
        if user:
            lines = [line for line in text.splitlines() if not line.startswith("SocketGroup=")]
            text = "\n".join(lines).replace("/run/stillup-%i.sock", "%t/stillup-%i.sock") + "\n"
        files[SOCKET] = text
    if hardened:
        files[f"{SERVICE}.d/{HARDENING}"] = _packaged(HARDENING)
    return files


def stop_budget(table: Mapping[str, Any]) -> float:
    """Seconds that a stop of a service may take, by its configuration file."""
    # The first that is given, as a run takes them.
    keys = ("stop-timeout", "timeout-graceful-shutdown", "drain-timeout")
    given = (_seconds(table, key) for key in keys)
    timeout = next((seconds for seconds in given if seconds is not None), STOP_TIMEOUT)
    return (_seconds(table, "stop-delay") or 0.0) + timeout + STOP_MARGIN


def _seconds(table: Mapping[str, Any], key: str) -> float | None:
    """A number of the file, which may have the key with ``_`` and the number in quotes; None if there is none."""
    value = table.get(key, table.get(key.replace("-", "_")))
    try:
        seconds = float(value) if value is not None else math.nan
    except (TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) else None


def stop_drop_ins(configurations: Path, place: Path) -> dict[str, str]:
    """For each service whose stop takes another time than the template's, a drop-in; by its path as in ``units``."""
    files: dict[str, str] = {}
    for path in sorted(configurations.glob("*.toml")):
        try:
            budget = stop_budget(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):  # 'stillup check' says what is wrong with it
            continue
        name = f"{SERVICE.replace('@', f'@{path.stem}')}.d/stop.conf"
        if budget != STOP_TIMEOUT + STOP_MARGIN or (place / name).exists():
            files[name] = (
                f"# By {path}: --stop-delay, --stop-timeout and {STOP_MARGIN:g} seconds.\n"
                f"[Service]\nTimeoutStopSec={budget:g}\n"
            )
    return files


def _packaged(name: str) -> str:
    """A file of the folder ``systemd/``: a wheel has a copy of it; ``pip install -e`` has the folder itself."""
    copy = resources.files("stillup.client") / "units" / name
    source = copy if copy.is_file() else Path(__file__).parents[3] / "systemd" / name
    return source.read_text(encoding="utf-8")


def _command() -> str:
    """The command of this very installation: the same virtual environment, whatever the path says.

    Raises:
        click.ClickException: in a unit its path would mean another.
    """
    beside = Path(sys.executable).with_name("stillup")
    path = str(beside) if beside.exists() else (shutil.which("stillup") or sys.executable)
    if not _PLAIN.fullmatch(path):
        message = f"systemd would take '{path}' for another command: have stillup where the path is plain"
        raise click.ClickException(f"{message} (letters, digits and _ . / @ : + , = ~ -)")
    return f"{path} -m stillup" if path == sys.executable else path


def _place(*, user: bool) -> Path:
    if not user:
        return Path("/etc/systemd/system")
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _files(*, user: bool, run_as: str, socket: bool, hardened: bool) -> dict[str, str]:
    place = _place(user=user)
    configurations = place.parents[1] / "stillup" if user else Path("/etc/stillup")
    files = units(user=user, run_as=run_as, socket=socket, hardened=hardened)
    return {**files, **stop_drop_ins(configurations, place)}


def _options(command: click.Command) -> click.Command:
    """Give a command what says which units are meant."""
    for option in (
        click.Option(
            ["--user"], is_flag=True, help="For your own service manager (systemctl --user), not the system's."
        ),
        click.Option(["--run-as"], metavar="USER", default="stillup", show_default=True, help="Whose rights it has."),
        click.Option(["--socket"], is_flag=True, help='With socket activation: bind = ["systemd:web"].'),
        click.Option(
            ["--hardened"], is_flag=True, help="With a drop-in that takes away what a web service does not need."
        ),
    ):
        command.params.append(option)
    return command


@click.group
def systemd() -> None:
    """Units for a service of your own: one template, an instance a service.

    'systemctl enable --now stillup@shop' then runs what /etc/stillup/shop.toml says (with --user:
    ~/.config/stillup/shop.toml).
    """


@_options
@systemd.command(short_help="Print the units.")
def show(*, user: bool, run_as: str, socket: bool, hardened: bool) -> None:
    """Print the units that 'install' would write."""
    _check(user=user, run_as=run_as, hardened=hardened)
    for name, text in _files(user=user, run_as=run_as, socket=socket, hardened=hardened).items():
        echo(f"# {_place(user=user) / name}")
        echo_lines(text)


@_options
@systemd.command(short_help="Write the units.")
def install(*, user: bool, run_as: str, socket: bool, hardened: bool) -> None:
    """Write the units, and let systemd read them. Nothing is started or enabled; what runs goes on."""
    _check(user=user, run_as=run_as, hardened=hardened)
    if not user:
        _check_user(run_as)
    try:
        for name, text in _files(user=user, run_as=run_as, socket=socket, hardened=hardened).items():
            path = _place(user=user) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            echo(f"wrote {path}")
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}; as root, or with --user") from error
    manager = ["systemctl", *(["--user"] if user else [])]
    try:
        subprocess.run([*manager, "daemon-reload"], check=True)  # noqa: S603 - no word of it is anybody else's
    except (OSError, subprocess.CalledProcessError) as error:
        raise click.ClickException(
            f"systemd has not read them: {error}; '{' '.join(manager)} daemon-reload'"
        ) from error
    place = "~/.config/stillup" if user else "/etc/stillup"
    echo(f"next: {place}/NAME.toml, then {' '.join(manager)} enable --now stillup@NAME")


def _check(*, user: bool, run_as: str, hardened: bool) -> None:
    if not _USER.fullmatch(run_as):
        raise click.UsageError(f"'{run_as}' is no name of a user (--run-as)")
    if user and hardened:
        raise click.UsageError(
            "--hardened is not for --user: a user's own service manager can take these things away in a user namespace "
            "alone (PrivateUsers=), in which the control socket knows no user but you"
        )


def _check_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        hint = f"'useradd --system --no-create-home --shell /usr/sbin/nologin {name}' makes one"
        raise click.UsageError(f"there is no user '{name}' (--run-as); {hint}") from None
