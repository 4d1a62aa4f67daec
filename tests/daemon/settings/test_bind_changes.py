"""What a reload makes of each bind that says something else: put into service, or what it needs."""

from __future__ import annotations

import os

import pytest

from stillup.core.setting_changes import Effect
from stillup.daemon.settings.bind_changes import merge
from stillup.wire.address import Bind, TcpAddress, parse_binds

PORT, OTHER = "127.0.0.1:80", "127.0.0.1:81"
ALL = "0.0.0.0:80"
ME, MINE = f"group={os.getegid()}", os.getegid()


@pytest.mark.parametrize(
    ("kept", "asked", "binds", "applied"),
    [
        ([PORT], [PORT], [PORT], []),
        ([PORT, OTHER], [OTHER, PORT], [OTHER, PORT], []),
        ([PORT], [OTHER], [OTHER], [f"{OTHER} added", f"{PORT} removed"]),
        ([PORT], [PORT, "unix:/run/s"], [PORT, "unix:/run/s"], ["unix:/run/s added"]),
        ([PORT, "unix:@s"], [PORT], [PORT], ["unix:@s removed"]),
        (["web=127.0.0.1:80"], ["web=127.0.0.1:81"], ["web=127.0.0.1:81"], [f"{OTHER} added", f"{PORT} removed"]),
        (["web=unix:/s"], [f"web={PORT}"], [f"web={PORT}"], [f"{PORT} added", "unix:/s removed"]),
        ([PORT], ["[::1]:80"], ["[::1]:80"], ["[::1]:80 added", f"{PORT} removed"]),
        ([ALL], ["[::]:80"], ["[::]:80"], ["[::]:80 added", f"{ALL} removed"]),
        ([ALL], ["0.0.0.0:81"], ["0.0.0.0:81"], ["0.0.0.0:81 added", f"{ALL} removed"]),
        (["a=[::1]:0"], ["a=[::1]:0", "b=[::1]:0"], ["a=[::1]:0", "b=[::1]:0"], ["[::1]:0 added"]),
        (["localhost:80"], [PORT], [PORT], [f"{PORT} added", "localhost:80 removed"]),
        (["systemd:web"], ["systemd:web", PORT], ["systemd:web", PORT], [f"{PORT} added"]),
        ([f"w=unix:/a,{ME}"], [f"v=unix:/b,{ME}"], [f"v=unix:/b,{ME}"], ["unix:/b added", "unix:/a removed"]),
    ],
)  # fmt: skip
def test_what_a_reload_applies(kept: list[str], asked: list[str], binds: list[str], applied: list[str]) -> None:
    """What is new is added, what is not there any more is removed; in which order they stand is nothing."""
    merged = merge(parse_binds(kept), parse_binds(asked), {"w": MINE})
    assert merged.binds == parse_binds(binds)
    assert [change.what for change in merged.changes] == applied
    assert all((change.key, change.effect) == ("bind", Effect.APPLIED) for change in merged.changes)


@pytest.mark.parametrize(
    ("kept", "asked", "binds", "says"),
    [
        ([PORT], [f"web={PORT}"], [PORT], ["its name, mode, owner or group"]),
        (["unix:/s"], ["unix:/s,mode=0600"], ["unix:/s"], ["its name, mode, owner or group"]),
        ([ALL], [PORT], [ALL], [f"{PORT}: {ALL} has it"]),
        ([PORT], [ALL], [PORT], [f"{ALL}: {PORT} has it"]),
        ([PORT, OTHER], [ALL, OTHER], [OTHER, PORT], [f"{PORT} has it"]),
        (["w=unix:/a"], ["w=unix:/b"], ["w=unix:/a"], ["with another name a reload adds it"]),
        ([PORT], [PORT, "g=unix:/b"], [PORT], ["'g' was of another group"]),
        ([PORT], [PORT, "systemd:web"], [PORT], ["systemd:web: whoever starts the service"]),
        ([PORT], ["fd:3"], [PORT], ["fd:3: whoever starts the service"]),
        (["systemd:web", PORT], [PORT], [PORT, "systemd:web"], ["whoever passes it here"]),
    ],
)
def test_what_needs_a_restart(kept: list[str], asked: list[str], binds: list[str], says: list[str]) -> None:
    """What is there serves on as it is; the reason is said."""
    merged = merge(parse_binds(kept), parse_binds(asked), {"g": 12345678})
    assert merged.binds == parse_binds(binds)
    assert len(merged.changes) == len(says)
    for change, part in zip(merged.changes, says, strict=True):
        assert (change.key, change.effect) == ("bind", Effect.NEEDS_RESTART)
        assert part in change.what


def test_every_interface_of_both_kinds_is_in_the_way_of_each() -> None:
    """``--host ::``."""
    dual = Bind("[::]:80", TcpAddress("::", 80, is_dual=True))
    for one, other in ((dual, parse_binds([PORT])[0]), (parse_binds(["[::1]:80"])[0], dual)):
        merged = merge([one], [other], {})
        assert merged.binds == (one,)
        assert [change.effect for change in merged.changes] == [Effect.NEEDS_RESTART]
