"""How a unit stops, in a real systemd: who may, how long it takes, and what becomes of newcomers."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

from tests.system.harness import STILLUP, eventually
from tests.system.manager.booted_systemd import SHARED, Booted
from tests.system.manager.installed_units import Shop, in_network_of
from tests.system.manager.test_units import small

ADDRESS = ("127.0.0.1", 8000)
IDLE_ORPHANS = 7.0
"""Seconds for a stop whose deadline is 2, and for idle workers to end; the end of the queue was waited for, for 5."""


def test_stopped_by_who_started_it(booted: Booted) -> None:
    """`stillup stop` is refused, and names systemctl; what the unit itself runs is not, be it asked to or in need."""
    shop = small(booted)
    shop.drop_in("own.conf", f"[Service]\nExecStop={STILLUP} stop\n")
    with shop:
        done = booted.run(STILLUP, "stop", "--name", shop.name)
        assert done.returncode == 1
        assert "'systemctl stop stillup@shop' stops it, or --force" in done.stderr
        assert shop.show("ActiveState") == "active"
        booted.systemctl("stop", shop.unit)
        assert shop.show("Result") == "success"
    # Its supervisor does not hear, and is killed; ExecStopPost ends its workers.
    shop.drop_in("own.conf", "[Service]\nTimeoutStopSec=2\nKillSignal=SIGURG\n")
    with shop:
        begun = time.monotonic()
        booted.systemctl("stop", shop.unit)
        assert time.monotonic() - begun < IDLE_ORPHANS


def test_newcomers_at_the_end(booted: Booted) -> None:
    """After a cordon a stop is final: who connects while a request is finished is refused, and does not hang."""
    shop = Shop(booted, workers=1)

    def come() -> None:
        with socket.create_connection(ADDRESS, 20) as slow:
            slow.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
            eventually(lambda: '"in-progress": 1' in shop.cli("status", "--json"), "a request is in progress")
            assert "cordoned" in shop.cli("cordon")
            with subprocess.Popen(booted.argv("systemctl", "stop", shop.unit)) as stop:
                eventually(lambda: shop.show("ActiveState") == "deactivating", "it stops")
                eventually(_is_refused, "newcomers are refused", deadline=10)
                assert stop.poll() is None, "the request goes on meanwhile"
                slow.sendall(b"x")
                answer = b"".join(iter(lambda: slow.recv(4096), b""))
                assert answer.startswith(b"HTTP/1.1 200")

    with shop:
        in_network_of(booted, come)


def _is_refused() -> bool:
    try:
        socket.create_connection(ADDRESS, 5).close()
    except ConnectionError:
        return True
    return False


def test_a_wrong_word_in_the_file(booted: Booted) -> None:
    """A start is not tried for ever; unless workers of a supervisor that has died live on: the next one takes them."""
    shop = small(booted)
    file = Path(f"/proc/{booted.pid}/root/etc/stillup/{shop.name}.toml")
    shop.install()
    right = file.read_text()
    file.write_text(f"{right}worker = 2\n")
    assert booted.run("systemctl", "start", shop.unit).returncode != 0
    assert (shop.show("ActiveState"), shop.show("NRestarts"), shop.show("ExecMainStatus")) == ("failed", "0", "2")
    file.write_text(right)
    booted.systemctl("start", shop.unit)
    try:
        file.write_text(f"{right}worker = 2\n")
        pid = shop.show("MainPID")
        booted.systemctl("kill", "-s", "KILL", "--kill-whom=main", shop.unit)
        eventually(lambda: int(shop.show("NRestarts")) > 1, "it is tried again and again")
        file.write_text(right)
        shop.until_another(pid)
        eventually(lambda: "1 worker lives on" in shop.log(), "the log says so")
    finally:
        shop.stop()


def test_the_time_to_stop_in(booted: Booted) -> None:
    """By `systemd install`, of each service that has others than the template's; the doctor compares."""
    shop = small(booted, **{"stop-delay": 3, "drain-timeout": 40})
    with shop:
        assert "kills it after 35 s, and a stop may take 48 s" in shop.cli("doctor")
        environment = f"PYTHONPATH={SHARED}"
        assert booted.run("env", environment, STILLUP, "systemd", "install", "--run-as", "stillup").returncode == 0
        written = Path(f"/proc/{booted.pid}/root/etc/systemd/system/{shop.unit}.d/stop.conf")
        assert "TimeoutStopSec=48\n" in written.read_text()
        assert "may take 48 s" not in shop.cli("doctor")
        assert "nothing is kept over a restart" in shop.cli("doctor")
        written.unlink()  # what else is tried in there finds what it was
