"""The units in a real systemd: what systemctl says, who is let in, and what is left behind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.system.harness import APP, eventually
from tests.system.manager.booted_systemd import SHARED, Booted
from tests.system.manager.installed_units import UNITS, Shop

GOOD = APP
BAD = "import nosuch\n"


def small(booted: Booted, **settings: object) -> Shop:
    """A service with the smallest app, of which nothing is asked."""
    shop = Shop(booted, "main:app", workers=1, **settings)
    shop.folder.mkdir(exist_ok=True)
    (shop.folder / "main.py").write_text(GOOD)
    return shop


def test_systemd_has_no_complaint(booted: Booted) -> None:
    """`systemd-analyze verify` is clean, with the drop-in, too."""
    shop = small(booted)
    shop.hardened()
    shop.install()
    done = booted.run("systemd-analyze", "verify", shop.unit, "stillup@shop.socket")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_how_much_is_exposed(booted: Booted) -> None:
    """With the drop-in `systemd-analyze security` says at most 2.0, and OK."""
    shop = small(booted)
    shop.drop_in("hardening.conf", (UNITS / "hardening.conf").read_text())
    shop.install()
    said = booted.run("systemd-analyze", "security", "--no-pager", shop.unit).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+) (\w+)", said)
    assert found, said
    assert float(found[1]) <= 2.0, said
    assert found[2] == "OK"


def test_roles_under_the_drop_in(booted: Booted) -> None:
    """Who calls is still known: root is admin, a viewer may look and not reload, a stranger may do nothing."""
    shop = small(booted, **{"viewer": ["uid:20001"], "control-group": "stillup", "access-log": True})
    shop.hardened()
    shop.drop_in("others.conf", "[Service]\nRuntimeDirectoryMode=0711\n")
    with shop:
        group = booted.run("id", "-g", "stillup").stdout.strip()
        asked = {
            uid: [shop.status_of(uid, group, *words) for words in (("GET", "/v1/status"), ("POST", "/v1/reload"))]
            for uid in (0, 20001, 20002)
        }
        assert asked == {0: [200, 202], 20001: [200, 403], 20002: [403, 403]}
        wanted = ("STILLUP_EVENT=request.audited", "PRIORITY=4")
        eventually(lambda: any("uid 20002" in one["MESSAGE"] for one in shop.entries(*wanted)), "it is in the journal")


def test_a_bad_release(booted: Booted) -> None:
    """`systemctl reload` fails, `systemctl status` says why, and the old generation serves."""
    with small(booted) as shop:
        before = shop.show("MainPID")
        (shop.folder / "main.py").write_text(BAD)
        done = booted.run("systemctl", "reload", shop.unit)
        assert done.returncode != 0
        told = ("gen 2 rejected (import); gen 1 serves, 1 of 1 workers", "No module named 'nosuch'")
        eventually(lambda: all(one in status(shop) for one in told), "systemctl status says why")
        assert (shop.show("ActiveState"), shop.show("SubState")) == ("active", "running")
        assert shop.show("MainPID") == before
        assert "gen 1 " in shop.cli("status")
        (old,) = [one["pid"] for one in json.loads(shop.cli("status", "--json"))["generations"][0]["workers"]]
        (shop.folder / "main.py").write_text(GOOD)
        shop.reload()
        eventually(lambda: "gen 3 serves" in status(shop), "systemctl status says so")
        (entry,) = eventually(lambda: shop.entries("STILLUP_EVENT=rollout.aborted"), "the journal has it")
        assert (entry["PRIORITY"], entry["STILLUP_GENERATION"]) == ("3", "2")
        assert entry["MESSAGE"].startswith("gen 2 rejected (import)")
        wanted = ("STILLUP_EVENT=rollout.cut-over", "STILLUP_GENERATION=3")
        (entry,) = eventually(lambda: shop.entries(*wanted), "the journal has it")
        assert entry["PRIORITY"] == "6"
        # A worker's log is in the journal by the same fields: while it boots by the supervisor, and then by itself.
        words = ("STILLUP_WORKER=3.1", "LOGGER=uvicorn.error", f"_PID={before}")
        said = "3.1 Application startup complete."
        eventually(lambda: said in [one["MESSAGE"] for one in shop.entries(*words)], "its boot's last words")
        words = ("STILLUP_WORKER=1.1", "LOGGER=uvicorn.error", f"_PID={old}")
        eventually(lambda: booted.entries(*words), "the old worker's own last words")


def test_a_hook_that_takes_longer_than_the_unit_gives_a_start(booted: Booted) -> None:
    """TimeoutStartSec= is for a start, and for a reload, that says nothing of how long it takes; a hook has its own."""
    shop = small(booted, **{"hook-timeout": 60, "hooks": {"before": ["sleep", "8"]}})
    shop.drop_in("short.conf", "[Service]\nTimeoutStartSec=4\n")
    with shop:
        eventually(lambda: "gen 1 serves" in status(shop), "it has started")
        before = shop.show("MainPID")
        shop.reload()
        eventually(lambda: "gen 2 serves" in status(shop), "it has reloaded")
        assert (shop.show("MainPID"), shop.show("ActiveState")) == (before, "active")


def test_a_canary_that_takes_longer_than_the_unit_gives_a_start(booted: Booted) -> None:
    """The reload waits for the verdict, and another supervisor goes on with a watch whose own was killed."""
    shop = small(booted, strategy="canary", **{"canary-time": 6, "no-gate": True})
    shop.drop_in("short.conf", "[Service]\nTimeoutStartSec=4\n")
    with shop:
        before = shop.show("MainPID")
        shop.reload()
        eventually(lambda: "gen 2 serves" in status(shop), "it has reloaded")
        assert (shop.show("MainPID"), shop.show("ActiveState")) == (before, "active")
        shop.cli("reload", "--wait", "none")
        eventually(lambda: "gen 3 is watched" in shop.log(), "it is watched, and no more only booting")
        shop.kill()
        eventually(lambda: "gen 3 serves" in status(shop), "the next supervisor has passed it")


def status(shop: Shop) -> str:
    return shop.booted.run("systemctl", "status", shop.unit).stdout


def test_a_release_that_never_serves(booted: Booted) -> None:
    """`systemctl start` waits for READY, and fails if there is none."""
    shop = small(booted)
    (shop.folder / "main.py").write_text(BAD)
    shop.drop_in("once.conf", "[Service]\nRestart=no\n")
    shop.install()
    done = booted.run("systemctl", "start", shop.unit)
    assert done.returncode != 0
    eventually(lambda: "No module named 'nosuch'" in shop.log(), "the log says why")
    shop.stop()


def test_a_stop_that_takes_too_long(booted: Booted) -> None:
    """A supervisor that does not hear is killed at the deadline, and its workers are ended all the same."""
    shop = small(booted)
    shop.drop_in("deaf.conf", "[Service]\nTimeoutStopSec=3\nKillSignal=SIGURG\n")
    with shop:
        booted.systemctl("stop", shop.unit)
        eventually(lambda: "timed out" in shop.log(), "the log says so")


def test_a_store_that_is_too_small(booted: Booted) -> None:
    """It is said once, and a restart is a stop and a start: nothing is put where nobody would find it."""
    shop = small(booted)
    shop.drop_in("small.conf", "[Service]\nFileDescriptorStoreMax=1\nEnvironment=FDSTORE=1\n")
    with shop:
        said = "does not keep our sockets over a restart: FileDescriptorStoreMax=1 is too few"
        eventually(lambda: said in shop.log(), "it is said")
        shop.restart()
        assert "gen 1 " in shop.cli("status")


def test_after_a_power_cut(booted: Booted) -> None:
    """What another boot has left in the runtime directory is in nobody's way."""
    shop = small(booted)
    with shop:
        left = Path(f"/proc/{booted.pid}/root/run/stillup/shop")
        kept = {path.name: path.read_bytes() for path in left.iterdir() if path.is_file()}
    assert "record.json" in kept
    kept["record.json"] = re.sub(rb'"boot": ?"[^"]*"', b'"boot":"another"', kept["record.json"])
    left.mkdir(parents=True)
    for name, content in kept.items():
        (left / name).write_bytes(content)
    for name in ("control.sock", "handoff.sock"):
        booted.run("python3", "-c", f"import socket; socket.socket(1).bind('/run/stillup/shop/{name}')")
    with shop:
        assert "gen 1 " in shop.cli("status")


def test_socket_activation(booted: Booted) -> None:
    """Sockets become listeners by their names, in whatever order they come, and live as long as their units."""
    shop = small(booted, bind=["systemd:web", "systemd:admin"], **{"health-path": ""})
    socket = "[Socket]\nFileDescriptorName={0}\nListenStream=/run/{0}.sock\nService=stillup@shop.service\n"
    for name in ("web", "admin"):
        booted.write(f"shop-{name}.socket", socket.format(name))
    shop.drop_in("sockets.conf", "[Unit]\nAfter=shop-web.socket shop-admin.socket\n")
    shop.install()
    for names in (["web", "admin"], ["admin", "web"]):
        for name in names:
            booted.systemctl("start", f"shop-{name}.socket")
        try:
            with shop:
                for name in names:
                    assert ask(booted, f"/run/{name}.sock").startswith("1 ")
                if names[0] == "web":  # as does 'stillup doctor'
                    assert "shop-web.socket" in (said := shop.cli("cordon"))
                    assert "listens on after a stop, and starts it again: stop both" in said
                    assert "shop-web.socket holds a listener, too" in shop.cli("doctor")
                    shop.cli("uncordon")
                status = shop.cli("status", "--json")
                assert re.search(r'"name": "web",\s+"address": "unix:/run/web.sock"', status)
                if names[0] == "web":
                    shop.restart()
                    assert ask(booted, "/run/web.sock").startswith("1 ")
            assert booted.systemctl("is-active", "shop-web.socket").strip() == "active"
        finally:
            booted.systemctl("stop", *(f"shop-{name}.socket" for name in names))


def test_a_reload_to_another_address(booted: Booted) -> None:
    """What systemd keeps is what a reload adds, and no longer what it removes, once that is closed."""
    before, after = (f"/run/stillup/shop/{name}.sock" for name in ("before", "after"))
    with small(booted, bind=[f"unix:{before}"], probation=2) as shop:
        kept = shop.show("NFileDescriptorStore")
        assert int(kept) > 0
        shop.configure(bind=[f"unix:{after}"])
        shop.reload()
        assert ask(booted, after).startswith("2 ")
        eventually(lambda: booted.run("test", "-e", before).returncode, "the one before is closed")
        eventually(lambda: shop.show("NFileDescriptorStore") == kept, "systemd has as many as before")
        for again in (shop.kill, shop.restart):
            again()
            assert ask(booted, after).split()[0].isdecimal()
            assert booted.run("test", "-e", before).returncode
            assert shop.show("NFileDescriptorStore") == kept
        assert re.search(rf'"address": "unix:{after}"', shop.cli("status", "--json"))


@pytest.mark.parametrize(
    ("bind", "passed", "says"),
    [
        ("systemd:web", "other", "systemd:web: systemd passed no socket of that name (it passed: 'other')"),
        (
            "127.0.0.1:8000",
            "other",
            "systemd passed a socket named 'other' that nothing listens on: add --bind systemd:other",
        ),
        ("systemd:web", "", "systemd passed no socket of that name (it passed: none)"),
    ],
)
def test_sockets_that_do_not_match(booted: Booted, bind: str, passed: str, says: str) -> None:
    """What the configuration does not know, or misses, is a clear error."""
    shop = small(booted, bind=[bind])
    shop.drop_in("once.conf", "[Service]\nRestart=no\n")
    shop.install()
    if passed:
        socket = f"[Socket]\nFileDescriptorName={passed}\nListenStream=/run/{passed}.sock\nService={shop.unit}\n"
        booted.write(f"shop-{passed}.socket", socket)
        booted.systemctl("daemon-reload")
        booted.systemctl("start", f"shop-{passed}.socket")
    try:
        assert booted.run("systemctl", "start", shop.unit).returncode != 0
        eventually(lambda: says in shop.log(), "the log says so")
    finally:
        if passed:
            booted.systemctl("stop", f"shop-{passed}.socket")
        shop.stop()


def ask(booted: Booted, path: str) -> str:
    done = booted.run("curl", "-s", "--max-time", "10", "--unix-socket", path, "http://localhost/")
    assert done.returncode == 0, done
    return done.stdout


def test_where_it_is_shared(booted: Booted) -> None:
    """The tests' own directory is seen inside."""
    (booted.shared / "here").touch()
    assert booted.run("ls", f"{SHARED}/here").returncode == 0
