"""The text of a bind: ``[NAME=]ADDR[,mode=0660][,user=U][,group=G]``.

``ADDR`` is ``HOST:PORT``, ``[::1]:PORT``, ``unix:/path``, ``unix:@abstract``, ``fd:N`` or ``systemd:NAME``. A
listener's identity is its name; without one it is named after its address, or as systemd calls it.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from stillup.errors import UsageError

DEFAULT_MODE: Final = 0o666
"""The mode of a Unix socket that says none: uvicorn's, so that a proxy in front reaches it as before."""
_LONGEST_PATH = 107
"""Bytes in sockaddr_un.sun_path without its closing NUL (unix(7))."""
LONGEST_NAME = 64
"""Characters of a listener's name: it goes with each connection that moves."""
_NAME = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
_ACTIVATED = re.compile(r"[!-9;-~]+")
"""What systemd takes for one: ASCII without blanks, controls and colons (systemd.socket(5))."""
PORTS: Final = range(65536)
ANY: Final = "0.0.0.0"  # noqa: S104 - ":8000" is how the field writes "every interface"
_FDS = range(2**31)
_DIGITS = re.compile(r"[0-9]{1,10}")
"""As many as the largest descriptor has; int() itself refuses some thousands (ValueError)."""


class TcpAddress(msgspec.Struct, frozen=True):
    """A TCP address; port 0 lets the kernel choose."""

    host: str
    port: int
    is_dual: bool = False
    """Whether an IPv6 address takes IPv4, too: ``::`` is every interface then."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixAddress(msgspec.Struct, frozen=True):
    """A socket file."""

    path: str
    mode: int = DEFAULT_MODE
    user: str | None = None
    group: str | None = None

    def __str__(self) -> str:
        return f"unix:{self.path}"


class AbstractAddress(msgspec.Struct, frozen=True):
    """A Unix socket without a file; ``name`` is without its leading NUL."""

    name: str

    def __str__(self) -> str:
        return f"unix:@{self.name}"


class InheritedAddress(msgspec.Struct, frozen=True):
    """A listening socket that the supervisor was started with."""

    fd: int

    def __str__(self) -> str:
        return f"fd:{self.fd}"


class ActivatedAddress(msgspec.Struct, frozen=True):
    """A listening socket that systemd started the supervisor with: ``name`` is its FileDescriptorName."""

    name: str

    def __str__(self) -> str:
        return f"systemd:{self.name}"


Address = TcpAddress | UnixAddress | AbstractAddress | InheritedAddress | ActivatedAddress


class Bind(msgspec.Struct, frozen=True):
    """A name and where it listens."""

    name: str
    address: Address


def is_open(address: Address) -> bool:
    """Whether anybody on this host can connect, whoever they are, and no address says who."""
    return isinstance(address, AbstractAddress) or (isinstance(address, UnixAddress) and bool(address.mode & 0o002))


def every_interface(address: Address) -> str:
    """What to say of an address that is every interface; empty of any other."""
    match address:
        case TcpAddress("::", _, True):
            return "every interface, IPv4 and IPv6"
        case TcpAddress("::"):
            return "every interface, IPv6 alone"
        case TcpAddress(host) if host == ANY:
            return "every interface, IPv4"
        case _:
            return ""


def as_url(address: str, scheme: str) -> str:
    """An address as somebody can open it: a port as a URL, anything else as it is."""
    return address if address.startswith(("unix:", "fd:", "systemd:")) else f"{scheme}://{address}"


def resembles(address: Address, seen: str) -> bool:
    """Whether a socket that says it is at ``seen`` may be what was asked for as ``address``."""
    match address:
        case TcpAddress(host, port, is_dual):
            where, _, number = seen.rpartition(":")
            numeric = ":" in host or host.replace(".", "").isdigit()
            same_host = where.strip("[]") == host or not numeric or (is_dual and where == ANY)
            return same_host and number.isdecimal() and port in (0, int(number))
        case InheritedAddress() | ActivatedAddress():
            return True
        case _:
            return str(address) == seen


def parse_bind(text: str) -> Bind:
    """Read one ``--bind``.

    Raises:
        UsageError: the text is no bind; the message says what one looks like.
    """
    _check_text(text)
    match = _NAME.fullmatch(text)
    name, rest = match.groups() if match else ("", text)
    if len(name) > LONGEST_NAME:
        raise UsageError(f"bind '{text}': a name has at most {LONGEST_NAME} characters")
    where, *options = rest.split(",")
    address = _parse_address(where, text)
    if options:
        address = _with_options(address, options, text)
    own = address.name if isinstance(address, ActivatedAddress) else str(address)
    return Bind(name or own, address)


def parse_binds(texts: list[str]) -> tuple[Bind, ...]:
    """Read every ``--bind`` of a service.

    Raises:
        UsageError: one of them is no bind, or two have one name.
    """
    binds = tuple(parse_bind(text) for text in texts)
    seen: set[str] = set()
    for bind in binds:
        if bind.name in seen:
            message = f"two binds are named '{bind.name}'; give each its own name: --bind NAME=ADDR"
            raise UsageError(message)
        seen.add(bind.name)
    return binds


def _check_text(text: str) -> None:
    """An argument that is no UTF-8 comes with lone surrogates (os.fsdecode); a file may say NUL, and no path can."""
    try:
        plain = b"\0" not in text.encode()
    except UnicodeEncodeError:
        plain = False
    if not plain:
        shown = text.replace("\0", "\\0").encode(errors="backslashreplace").decode()
        raise UsageError(f"bind '{shown}': an address is text in UTF-8, without NUL")


def _number(text: str, among: range) -> int | None:
    """What the digits say, if it is among those."""
    number = int(text) if _DIGITS.fullmatch(text) else -1
    return number if number in among else None


def _parse_address(where: str, text: str) -> Address:
    scheme, _, rest = where.partition(":")
    if scheme == "unix" and rest:
        if len(rest.encode()) > _LONGEST_PATH:
            message = (
                f"bind '{text}': a Unix socket's path has at most {_LONGEST_PATH} bytes, this one {len(rest.encode())}"
            )
            raise UsageError(message)
        if rest == "@":
            raise UsageError(f"bind '{text}': an abstract socket has a name: unix:@name")
        if rest.startswith("@"):
            return AbstractAddress(rest[1:])
        return UnixAddress(rest)
    if scheme == "fd" and rest:
        fd = _number(rest, _FDS)
        if fd is None:
            message = f"bind '{text}': 'fd:' takes the number of an open descriptor"
            raise UsageError(message)
        return InheritedAddress(fd)
    if scheme == "systemd" and rest:
        if len(rest) > LONGEST_NAME or not _ACTIVATED.fullmatch(rest):
            message = f"bind '{text}': 'systemd:' takes the FileDescriptorName of a .socket unit, such as systemd:web"
            raise UsageError(message)
        return ActivatedAddress(rest)
    host, _, digits = where.rpartition(":")
    port = _number(digits, PORTS)
    if port is None or ":" not in where:
        message = f"bind '{text}': expected HOST:PORT, [IPV6]:PORT, unix:/path, unix:@name, fd:N or systemd:NAME"
        raise UsageError(message)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        message = f"bind '{text}': an IPv6 address stands in brackets: [{host}]:{digits}"
        raise UsageError(message)
    return TcpAddress(host or ANY, port)


def _with_options(address: Address, options: list[str], text: str) -> Address:
    if not isinstance(address, UnixAddress):
        message = f"bind '{text}': 'mode', 'user' and 'group' are for unix:/path only"
        raise UsageError(message)
    mode, user, group = address.mode, address.user, address.group
    for option in options:
        key, _, value = option.partition("=")
        if key == "mode" and re.fullmatch("0?[0-7]{3}", value):
            mode = int(value, 8)
        elif key == "user" and value:
            user = value
        elif key == "group" and value:
            group = value
        else:
            message = f"bind '{text}': '{option}' is not mode=0660, user=NAME or group=NAME (or numbers)"
            raise UsageError(message)
    return UnixAddress(address.path, mode, user, group)
