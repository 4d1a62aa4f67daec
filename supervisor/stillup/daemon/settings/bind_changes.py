"""What a reload makes of binds that were changed in the configuration.

1. A bind that is new is added, one that is not there any more is removed: a reload puts both into service.
2. A socket that exists keeps its name, mode, owner and group: other ones for the same address need a restart.
3. What systemd or whoever started us has bound is theirs: it is neither added nor removed.
4. By its name it is known whom a connection's proxy is (``WorkerSettings.proxy_gids``), and connections outlast a
   listener. So a Unix socket elsewhere needs another name, or a restart.
5. An address that this service has already, as a part of every interface, needs a restart: one socket cannot take the
   place of the other while both are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address

import msgspec

from stillup.core.listener_key import ListenerKey
from stillup.core.setting_changes import Effect, SettingChange
from stillup.host.sockets import group_of
from stillup.wire.address import (
    AbstractAddress,
    ActivatedAddress,
    Address,
    Bind,
    InheritedAddress,
    TcpAddress,
    UnixAddress,
)

KEY = "bind"


class BindChanges(msgspec.Struct, frozen=True):
    """What is listened on from a reload on, and what has become of each bind that was changed."""

    binds: tuple[Bind, ...]
    changes: tuple[SettingChange, ...] = ()


def listener_key(bind: Bind) -> ListenerKey:
    """Which listener a bind asks for."""
    return ListenerKey(bind.name, str(bind.address))


def merge(kept: Sequence[Bind], asked: Sequence[Bind], groups: Mapping[str, int]) -> BindChanges:
    """What comes of the binds that are in force, where others are asked for.

    Args:
        kept: those in force.
        asked: what the configuration says now.
        groups: by name, whose members are believed on each Unix socket that there is or was since the start.

    Raises:
        UsageError: a group that is named does not exist.
    """
    by_key = {listener_key(bind): bind for bind in kept}
    binds: list[Bind] = []
    changes: list[SettingChange] = []
    replaced: set[Bind] = set()
    added: list[Bind] = []
    for bind in asked:
        same = by_key.get(listener_key(bind)) or next((one for one in kept if _is_same_address(one, bind)), None)
        if same is not None:
            binds.append(same)
            if same != bind:
                changes.append(_needs_restart(f"{bind.address}: its name, mode, owner or group"))
        elif why := _why_not_added(bind, kept, groups):
            changes.append(_needs_restart(f"{bind.address}{why}"))
            replaced |= {one for one in kept if _is_in_the_way(one, bind)}
        else:
            added.append(bind)
    for bind in kept:
        if bind in binds:
            continue
        if bind in replaced:  # what is to come in its place cannot: it serves on
            binds.append(bind)
        elif _is_inherited(bind.address):
            binds.append(bind)
            changes.append(_needs_restart(f"{bind.address}: whoever passes it here has to end that"))
    binds += added
    if not binds:  # all that was asked for needs a restart
        return BindChanges(tuple(kept), tuple(changes))
    changes += [SettingChange(KEY, Effect.APPLIED, what=f"{bind.address} added") for bind in added]
    changes += [
        SettingChange(KEY, Effect.APPLIED, what=f"{bind.address} removed") for bind in kept if bind not in binds
    ]
    return BindChanges(tuple(binds), tuple(changes))


def _needs_restart(what: str) -> SettingChange:
    return SettingChange(KEY, Effect.NEEDS_RESTART, what=what)


def _why_not_added(bind: Bind, kept: Sequence[Bind], groups: Mapping[str, int]) -> str:
    if _is_inherited(bind.address):
        return ": whoever starts the service passes it, as a .socket unit does"
    for one in kept:
        if _overlap(one.address, bind.address):
            return f": {one.address} has it"
        if _takes_name(one, bind):
            return f": '{one.name}' is {one.address}; with another name a reload adds it"
    if _is_unix(bind.address) and groups.get(bind.name, group_of(bind)) != group_of(bind):
        return f": '{bind.name}' was of another group; with another name a reload adds it"
    return ""


def _is_in_the_way(one: Bind, bind: Bind) -> bool:
    return _overlap(one.address, bind.address) or _takes_name(one, bind)


def _takes_name(one: Bind, bind: Bind) -> bool:
    return one.name == bind.name and _is_unix(one.address) and _is_unix(bind.address)


def _is_same_address(one: Bind, other: Bind) -> bool:
    """Whether both are one socket's address; of port 0 there are any number."""
    if isinstance(one.address, TcpAddress) and one.address.port == 0:
        return False
    return str(one.address) == str(other.address)


def _is_inherited(address: Address) -> bool:
    return isinstance(address, InheritedAddress | ActivatedAddress)


def _is_unix(address: Address) -> bool:
    return isinstance(address, UnixAddress | AbstractAddress)


def _overlap(one: Address, other: Address) -> bool:
    """Whether one of them is every interface, at the port that the other one has."""
    if not (isinstance(one, TcpAddress) and isinstance(other, TcpAddress)) or 0 in (one.port, other.port):
        return False
    if one.port != other.port:
        return False
    return any(_takes_all_of(every, of) for every, of in ((one, other), (other, one)))


def _takes_all_of(every: TcpAddress, of: TcpAddress) -> bool:
    try:
        if not ip_address(every.host).is_unspecified:
            return False
    except ValueError:  # a name
        return False
    return every.is_dual or (":" in every.host) == (":" in of.host)
