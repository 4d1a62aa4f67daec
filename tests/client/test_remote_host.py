"""Addresses of other hosts: what of them reaches ssh, and the shell there."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stillup.client import remote_host, runtime_place
from stillup.client.remote_host import RemoteHost
from stillup.errors import UsageError
from tests.system.other_user import being

PIECES = st.lists(st.sampled_from([*"-a@:[]% '", "-oProxyCommand=x", "web1", "::1", "22"])).map("".join)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("ssh://web1", RemoteHost("web1")),
        ("ssh://web1/", RemoteHost("web1")),
        ("ssh://deploy@web1.example.com:2222", RemoteHost("web1.example.com", "deploy", 2222)),
        ("ssh://[fe80::1%eth0]:22", RemoteHost("fe80::1%eth0", "", 22)),
    ],
)
def test_addresses(url: str, host: RemoteHost) -> None:
    """What is said is what ssh is told."""
    assert remote_host.parsed(url, "here") == host
    assert host.url == url.rstrip("/")


@given(PIECES)
@example("-oProxyCommand=x")
@example("-l@web1")
def test_no_address_is_an_option_or_a_word_to_a_shell(rest: str) -> None:
    """Whatever is accepted is one word that ssh takes for a host, a user or a port."""
    try:
        host = remote_host.parsed(f"ssh://{rest}", "here")
    except UsageError:
        return
    words = host.command("status")
    before, (name, there) = words[: words.index("--")], words[words.index("--") + 1 :]
    assert (before[0], set(before[1::2]) <= {"-l", "-p"}, there) == ("ssh", True, "stillup status")
    assert shlex.split(name) == [name]
    assert not any(word.startswith("-") for word in (name, *before[2::2]))


def test_a_service_there() -> None:
    """A name is one that a service may have; a path is one word to the shell there, whatever is in it."""
    host, none, shop = RemoteHost("web1"), dict[str, str](), {"STILLUP_NAME": "shop"}
    assert remote_host.service_there(host, None, None, None, shop).name == "shop"
    assert remote_host.service_there(host, None, "/x", None, shop) == RemoteHost("web1", runtime_dir="/x")
    for name, config in (("-x", None), ("a;b", None), (None, "stillup.toml")):
        with pytest.raises(UsageError):
            remote_host.service_there(host, name, None, config, none)
    assert shlex.split(host.command("dial-stdio", "--runtime-dir=/a b;'$(c)")[-1])[-1] == "--runtime-dir=/a b;'$(c)"


def test_connections_are_kept_where_nobody_else_puts_anything(tmp_path: Path) -> None:
    """Not in a folder that another has made, or may write to: whoever listens there would be asked."""
    folder = runtime_place.own_folder("x", {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert folder == str(tmp_path / "x")
    assert os.stat(folder).st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert runtime_place.own_folder("open", {"XDG_RUNTIME_DIR": str(tmp_path)}) == ""
    (tmp_path / "link").symlink_to(tmp_path / "x")
    assert runtime_place.own_folder("link", {"XDG_RUNTIME_DIR": str(tmp_path)}) == ""
    if os.geteuid() == 0:
        with being(12345):
            assert runtime_place.own_folder("x", {"XDG_RUNTIME_DIR": str(tmp_path)}) == ""
