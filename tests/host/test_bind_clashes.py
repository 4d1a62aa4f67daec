"""Two binds of one service that cannot both be had: foreseen exactly where the kernel refuses the second."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import pytest

from stillup.errors import Unavailable
from stillup.host.bind_clashes import claim_of, clash
from stillup.host.sockets import open_listener, try_bind
from stillup.wire.address import Bind, TcpAddress, parse_bind
from tests.host.tcp_ports import own_port

HOSTS = ("127.0.0.1", "127.0.0.2", "localhost", "0.0.0.0", "[::1]", "[::]")


def _taken(first: str, second: str) -> bool:
    """Whether the kernel refuses the second while the first listens."""
    with contextlib.ExitStack() as opened:
        opened.callback(open_listener(parse_bind(first), 1).close)
        try:
            opened.callback(open_listener(parse_bind(second), 1).close)
        except Unavailable:
            return True
    return False


def _foreseen(first: str, second: str) -> bool:
    binds = parse_bind(f"a={first}"), parse_bind(f"b={second}")
    with contextlib.ExitStack() as bound:
        claims = []
        for bind in binds:
            try:
                sock = try_bind(bind)
            except Unavailable:  # an abstract name is had by one socket alone
                sock = None
            if sock is not None:
                bound.callback(sock.close)
            claims.append(claim_of(bind, sock))
    return clash(*claims)


@pytest.fixture
def port() -> int:
    """One of our own, of all addresses."""
    return own_port()


@pytest.mark.parametrize(("one", "other"), list(itertools.product(HOSTS, HOSTS)))
def test_ports(one: str, other: str, port: int) -> None:
    """As the kernel has it: an address and every address of its kind, and IPv6 apart from IPv4."""
    first, second = f"{one}:{port}", f"{other}:{port}"
    try:
        taken = _taken(first, second)
    except Unavailable:
        pytest.skip(f"{first} cannot be had here, or another has taken the port")
    assert _foreseen(first, second) is taken


def test_every_interface_of_both_kinds(port: int) -> None:
    """`--host ::` takes IPv4 as well."""
    both = Bind("both", TcpAddress("::", port, is_dual=True))
    four = parse_bind(f"127.0.0.1:{port}")
    try:
        first, second = try_bind(both), try_bind(four)
    except Unavailable:
        pytest.skip("another has taken the port")
    assert first is not None
    assert second is not None
    with first, second:
        for one, other in itertools.permutations(((both, first), (four, second))):
            assert clash(claim_of(*one), claim_of(*other))


def test_other_ports() -> None:
    """Two that the kernel is to choose are never the same."""
    assert not _foreseen("127.0.0.1:0", "127.0.0.1:0")
    assert not _foreseen("0.0.0.0:0", "127.0.0.1:0")


def test_files(tmp_path: Path) -> None:
    """The same file by another way; another in the same directory is none."""
    (tmp_path / "link").symlink_to(tmp_path)
    assert _foreseen(f"unix:{tmp_path}/a.sock", f"unix:{tmp_path}/link/./a.sock")
    assert not _foreseen(f"unix:{tmp_path}/a.sock", f"unix:{tmp_path}/b.sock")
    assert not _foreseen(f"unix:{tmp_path}/a.sock", "127.0.0.1:0")


def test_abstract_names(tmp_path: Path) -> None:
    """A name that is in no file system."""
    name = f"unix:@{tmp_path}"
    assert _foreseen(name, name)
    assert not _foreseen(name, f"{name}.other")
