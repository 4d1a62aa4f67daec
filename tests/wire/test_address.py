"""The text of binds."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stillup.errors import UsageError
from stillup.wire.address import (
    ANY,
    DEFAULT_MODE,
    AbstractAddress,
    ActivatedAddress,
    Address,
    Bind,
    InheritedAddress,
    TcpAddress,
    UnixAddress,
    as_url,
    every_interface,
    is_open,
    parse_bind,
    parse_binds,
    resembles,
)

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,20}", fullmatch=True)
HOSTS = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True).filter(lambda host: host not in ("unix", "fd"))
PATHS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=",\0"), min_size=1, max_size=26)
WORDS = st.from_regex(r"[a-z_][a-z0-9_-]{0,15}", fullmatch=True)

TCP = st.builds(
    TcpAddress, HOSTS | st.ip_addresses(v=6).map(str) | st.ip_addresses(v=4).map(str), st.integers(0, 65535)
)
UNIX = st.builds(UnixAddress, PATHS.map(lambda rest: f"/{rest}"))
ABSTRACT = st.builds(AbstractAddress, PATHS)
ADDRESSES: st.SearchStrategy[Address] = TCP | UNIX | ABSTRACT | st.builds(InheritedAddress, st.integers(0, 2**31 - 1))


@given(address=ADDRESSES)
def test_an_address_reads_back_as_itself(address: Address) -> None:
    """What is written of an address is read as the same address, and names the listener that has no other name."""
    assert parse_bind(str(address)) == Bind(str(address), address)


@given(name=NAMES, address=ADDRESSES)
def test_a_name_is_kept_apart_from_its_address(name: str, address: Address) -> None:
    """A name before the address is the listener's identity and changes nothing of where it listens."""
    assert parse_bind(f"{name}={address}") == Bind(name, address)


@given(
    address=UNIX,
    mode=st.integers(0, 0o777),
    user=st.none() | WORDS,
    group=st.none() | WORDS,
    order=st.permutations(range(3)),
)
def test_the_options_of_a_socket_file(
    address: UnixAddress, mode: int, user: str | None, group: str | None, order: list[int]
) -> None:
    """Mode, user and group of a socket file are read in any order, and each may be left out."""
    options = [f"mode={mode:04o}", f"user={user}" if user else "", f"group={group}" if group else ""]
    text = ",".join([str(address), *(options[place] for place in order if options[place])])
    assert parse_bind(text).address == UnixAddress(address.path, mode, user, group)


@given(
    text=st.text(st.characters())
    | st.from_regex(r"(unix|fd|[a-z]*=?\[?[a-z0-9:]*\]?):[^,]*(,[a-z]*=?[0-9a-z]*)*", fullmatch=True)
)
def test_any_text_is_a_bind_or_a_usage_error(text: str) -> None:
    """Text that is no bind is the caller's mistake, and nothing else ever happens."""
    with suppress(UsageError):
        assert parse_bind(text).name


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", TcpAddress("127.0.0.1", 8000)),
        (":8000", TcpAddress("0.0.0.0", 8000)),
        ("[::1]:0", TcpAddress("::1", 0)),
        ("localhost:65535", TcpAddress("localhost", 65535)),
        ("unix:/run/app.sock", UnixAddress("/run/app.sock", 0o666, None, None)),
        ("unix:/run/app.sock,mode=660", UnixAddress("/run/app.sock", 0o660)),
        ("unix:/run/app.sock,user=660,group=660", UnixAddress("/run/app.sock", 0o666, "660", "660")),
        ("unix:/run/a=b.sock", UnixAddress("/run/a=b.sock")),
        ("unix:@app", AbstractAddress("app")),
        ("fd:3", InheritedAddress(3)),
        ("systemd:web", ActivatedAddress("web")),
        ("systemd:stillup@shop.socket", ActivatedAddress("stillup@shop.socket")),
        ("unixes:1", TcpAddress("unixes", 1)),
    ],
)
def test_what_a_bind_looks_like(text: str, address: Address) -> None:
    """Each form that the documentation names is read as it says."""
    assert parse_bind(text).address == address


@pytest.mark.parametrize(
    "text", ["127.0.0.1:8000", "localhost:80", "[::1]:0", "unix:/run/app.sock", "unix:@app", "fd:3"]
)
def test_an_address_is_written_as_the_field_writes_it(text: str) -> None:
    """Only an IPv6 address stands in brackets, and a listener without a name is called what its operator wrote."""
    assert parse_bind(text).name == str(parse_bind(text).address) == text


def test_a_socket_file_is_open_to_all_unless_it_says_otherwise() -> None:
    """Without a mode a socket file has uvicorn's, so that a proxy in front reaches it as before."""
    assert parse_bind("unix:/run/app.sock").address == UnixAddress("/run/app.sock", DEFAULT_MODE)
    assert DEFAULT_MODE == 0o666


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected HOST:PORT"),
        ("8000", "expected HOST:PORT"),
        ("localhost:", "expected HOST:PORT"),
        ("localhost:http", "expected HOST:PORT"),
        ("localhost:65536", "expected HOST:PORT"),
        ("localhost:-1", "expected HOST:PORT"),
        ("localhost:\N{SUPERSCRIPT TWO}", "expected HOST:PORT"),
        ("localhost:\N{ARABIC-INDIC DIGIT ONE}", "expected HOST:PORT"),
        ("unix:", "expected HOST:PORT"),
        ("fd:", "expected HOST:PORT"),
        ("fd:three", "the number of an open descriptor"),
        ("fd:-1", "the number of an open descriptor"),
        ("fd:2147483648", "the number of an open descriptor"),
        (f"fd:{'1' * 5000}", "the number of an open descriptor"),
        (f"localhost:{'1' * 5000}", "expected HOST:PORT"),
        ("unix:@", "an abstract socket has a name"),
        ("systemd:", "expected HOST:PORT"),
        ("systemd:two words", "takes the FileDescriptorName"),
        (f"systemd:{'a' * 65}", "takes the FileDescriptorName"),
        ("systemd:web,mode=0660", "are for unix:/path only"),
        ("fd:\N{ARABIC-INDIC DIGIT ONE}", "the number of an open descriptor"),
        ("::1]:8000", "stands in brackets"),
        ("::1:8000", r"in brackets: \[::1\]:8000"),
        ("[::1:8000", "stands in brackets"),
        ("127.0.0.1:80,mode=0660", "are for unix:/path only"),
        ("unix:@app,mode=0660", "are for unix:/path only"),
        ("fd:3,user=www", "are for unix:/path only"),
        ("unix:/a,mode=0999", "'mode=0999' is not"),
        ("unix:/a,mode=66", "'mode=66' is not"),
        ("unix:/a,mode=", "'mode=' is not"),
        ("unix:/a,user=", "'user=' is not"),
        ("unix:/a,group=", "'group=' is not"),
        ("unix:/a,owner=www", "'owner=www' is not"),
        ("unix:/a,", "'' is not"),
    ],
)
def test_what_is_no_bind(text: str, why: str) -> None:
    """What is no bind is refused with the text itself and what is wrong with it."""
    with pytest.raises(UsageError, match=why) as caught:
        parse_bind(text)
    assert f"bind '{text}': " in str(caught.value)
    assert caught.value.code == "usage"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("unix:/run/\udcff.sock", r"unix:/run/\udcff.sock"),
        ("\udcff:80", r"\udcff:80"),
        ("unix:/run/a\0.sock", r"unix:/run/a\0.sock"),
    ],
)
def test_what_no_path_or_host_can_be(text: str, shown: str) -> None:
    """Bytes that are no UTF-8, as Python has them in an argument, and NUL are refused with a text that can be shown."""
    with pytest.raises(UsageError, match="text in UTF-8, without NUL") as caught:
        parse_bind(text)
    assert f"bind '{shown}': " in str(caught.value)


@given(path=st.text("a\N{LATIN SMALL LETTER E WITH ACUTE}\N{SNOWMAN}", min_size=30, max_size=110))
def test_a_path_has_as_many_bytes_as_the_kernel_takes(path: str) -> None:
    """A socket path of 107 bytes is taken, one of 108 is refused, however many characters that makes."""
    size = len(path.encode())
    if size <= 107:
        assert parse_bind(f"unix:{path}").address == UnixAddress(path)
        return
    with pytest.raises(UsageError, match=f"at most 107 bytes, this one {size}"):
        parse_bind(f"unix:{path}")


@pytest.mark.parametrize("prefix", ["", "@"])
def test_the_longest_path(prefix: str) -> None:
    """The limit is the kernel's to the byte, for files and for abstract names."""
    longest = prefix + "x" * (107 - len(prefix))
    parse_bind(f"unix:{longest}")
    with pytest.raises(UsageError, match="107 bytes"):
        parse_bind(f"unix:{longest}x")


@given(texts=st.lists(ADDRESSES.map(str), unique=True, max_size=5))
def test_binds_of_different_names_stand_side_by_side(texts: list[str]) -> None:
    """Several binds keep their order."""
    assert [bind.name for bind in parse_binds(texts)] == texts


@given(name=NAMES, first=ADDRESSES, second=ADDRESSES)
def test_two_binds_need_two_names(name: str, first: Address, second: Address) -> None:
    """A name is an identity: two binds of one name are refused with the way out of it."""
    assume(name != str(first))
    with pytest.raises(UsageError, match=r"two binds are named .* --bind NAME=ADDR"):
        parse_binds([f"{name}={first}", f"other-{name}={first}", f"{name}={second}"])


def test_a_name_has_its_limit() -> None:
    """A listener's name, which goes with each connection that moves, has at most 64 characters."""
    assert parse_binds([f"{'n' * 64}=127.0.0.1:80"])[0].name == "n" * 64
    with pytest.raises(UsageError, match="at most 64 characters"):
        parse_binds([f"{'n' * 65}=127.0.0.1:80"])


@pytest.mark.parametrize(
    ("bind", "seen"),
    [
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        ("127.0.0.1:0", "127.0.0.1:43210"),
        ("[::1]:8000", "[::1]:8000"),
        ("[::]:0", "[::]:43210"),
        ("localhost:8000", "127.0.0.1:8000"),
        ("some.host:0", "10.0.0.1:43210"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
        ("unix:/run/app.sock,mode=0600", "unix:/run/app.sock"),
        ("unix:@app", "unix:@app"),
        ("fd:3", "127.0.0.1:8000"),
        ("fd:3", "unix:/run/app.sock"),
    ],
)
def test_what_a_bind_may_have_become(bind: str, seen: str) -> None:
    """A socket at that address may be what was asked for: port 0 has become any, a name any host, fd:N anything."""
    assert resembles(parse_bind(bind).address, seen)


@pytest.mark.parametrize(
    ("bind", "seen"),
    [
        ("127.0.0.1:8000", "127.0.0.1:8001"),
        ("127.0.0.1:8000", "127.0.0.1:80"),
        ("127.0.0.1:8000", "127.0.0.2:8000"),
        ("127.0.0.1:0", "0.0.0.0:43210"),
        ("127.0.0.1:0", "unix:/run/app.sock"),
        ("localhost:0", "unix:/run/app.sock"),
        ("localhost:0", ""),
        ("[::1]:8000", "127.0.0.1:8000"),
        ("localhost:8000", "127.0.0.1:8001"),
        ("unix:/run/app.sock", "unix:/run/other.sock"),
        ("unix:/app", "unix:@/app"),
        ("unix:@app", "127.0.0.1:8000"),
    ],
)
def test_what_a_bind_cannot_have_become(bind: str, seen: str) -> None:
    """Another port, another host that was given as a number, another kind of socket: that is something else."""
    assert not resembles(parse_bind(bind).address, seen)


def test_a_listener_is_called_as_systemd_calls_it() -> None:
    """Unless it is given another name; and whatever it is bound to may be what was asked for."""
    assert parse_bind("systemd:web") == Bind("web", ActivatedAddress("web"))
    assert parse_bind("api=systemd:web") == Bind("api", ActivatedAddress("web"))
    assert str(ActivatedAddress("web")) == "systemd:web"
    assert resembles(ActivatedAddress("web"), "127.0.0.1:80")


@pytest.mark.parametrize(
    ("bind", "anybody"),
    [
        ("unix:/run/a.sock", True),
        ("unix:/run/a.sock,mode=0660,group=www-data", False),
        ("unix:/run/a.sock,mode=0602", True),
        ("unix:@shop", True),
        ("127.0.0.1:80", False),
        ("fd:3", False),
        ("systemd:web", False),
    ],
)
def test_who_can_connect(bind: str, anybody: bool) -> None:
    """Anybody to an abstract socket, and to a file that all may write to; over TCP their address says who."""
    assert is_open(parse_bind(bind).address) is anybody


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (TcpAddress("::", 80, is_dual=True), "every interface, IPv4 and IPv6"),
        (TcpAddress("::", 80), "every interface, IPv6 alone"),
        (TcpAddress(ANY, 80), "every interface, IPv4"),
        (TcpAddress("::1", 80), ""),
        (UnixAddress("/x"), ""),
    ],
)
def test_every_interface_is_said(address: Address, said: str) -> None:
    """Who opens a service to the network is to read so."""
    assert every_interface(address) == said


def test_without_ipv6_every_interface_is_ipv4s() -> None:
    """A listener that was asked for as both may be the one that the machine has."""
    assert resembles(TcpAddress("::", 80, is_dual=True), f"{ANY}:80")
    assert resembles(TcpAddress("::", 80, is_dual=True), "[::]:80")
    assert not resembles(TcpAddress("::", 80), f"{ANY}:80")


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:8000", "https://127.0.0.1:8000"),
        ("[::1]:80", "https://[::1]:80"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("unix:@name", "unix:@name"),
    ],
)
def test_an_address_as_somebody_can_open_it(address: str, url: str) -> None:
    """A port is a URL; a socket file is named."""
    assert as_url(address, "https") == url
