"""Whether a service asks for one address twice: what a start would find taken by itself.

The kernel does not say so of sockets that are bound and do not listen yet: with SO_REUSEADDR several may have a port
(socket(7)), and the first one that listens keeps the others from it.
"""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address

import msgspec

from stillup.wire.address import AbstractAddress, Bind, UnixAddress


class AddressClaim(msgspec.Struct, frozen=True):
    """What a bind would have for itself: a file, or a port of one or all addresses."""

    path: str = ""
    """With no symlink on its way; of an abstract socket its name."""
    host: str = ""
    port: int = 0
    dual: bool = False
    """Whether it is of IPv6, and takes IPv4 as well."""


def claim_of(bind: Bind, sock: socket.socket | None) -> AddressClaim:
    """What a bind would have; ``sock`` is bound to its address, unless that is a file or could not be had."""
    if isinstance(bind.address, UnixAddress):
        folder, name = os.path.split(os.path.abspath(bind.address.path))
        return AddressClaim(path=os.path.join(os.path.realpath(folder), name))
    if isinstance(bind.address, AbstractAddress):
        return AddressClaim(path=str(bind.address))
    if sock is None:
        return AddressClaim()
    host, port, *_ = sock.getsockname()
    is_six = sock.family == socket.AF_INET6
    return AddressClaim(
        host=host, port=port, dual=is_six and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    )


def clash(one: AddressClaim, other: AddressClaim) -> bool:
    """Whether both cannot be had."""
    if one.path or other.path:
        return one.path == other.path
    if not one.port or one.port != other.port:
        return False
    hosts = [ip_address(claim.host.partition("%")[0]) for claim in (one, other)]
    every = any(host.is_unspecified for host in hosts)
    if hosts[0].version == hosts[1].version:
        return every or one.host == other.host
    return (one.dual and hosts[0].is_unspecified) or (other.dual and hosts[1].is_unspecified)
