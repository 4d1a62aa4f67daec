"""What comes back of another supervisor's listeners, from workers or the service manager, until a bind has it.

1. They are told apart by SO_COOKIE. While there is a record only what is on it is taken from a worker. Without one a
   listener has to look like one that is asked for, in our own network namespace, its file being the one that its path
   names.
2. A bind has the socket that was asked for as the same: of its own name first, then of any.
3. What no bind asks for is kept if the fleet on record wants it still; the rest is closed, and the files that were ours
   are removed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from stillup.core.listener_key import ListenerKey
from stillup.core.values import replace
from stillup.daemon.settings.bind_changes import listener_key
from stillup.errors import PeerError
from stillup.host.adoption_queue import cookie
from stillup.host.blocking_close import close_at_once
from stillup.host.socket_files import UnixFile
from stillup.host.sockets import Listener, cookie_of_listener, is_behind_its_path, is_of_our_network
from stillup.wire.address import ActivatedAddress, Address, Bind, InheritedAddress, UnixAddress, resembles
from stillup.wire.record_format import ListenerRecord, Record

logger = logging.getLogger("stillup")

MOST_RETURNED: Final = 256
"""Listeners that a worker may bring back where no record says how many there were."""


class ReturnedListeners:
    """Owns them until they are claimed."""

    def __init__(self, binds: Sequence[Bind], activated: Mapping[str, int], record: Record | None) -> None:
        """Hold nothing yet; as ``Custody``."""
        self._record = record
        self._asked = tuple(bind.address for bind in binds)
        self.inherited: dict[Address, tuple[int, int]] = {}
        """The descriptor, and the cookie of what listens there."""
        for bind in binds:
            fd = None
            match bind.address:
                case InheritedAddress(number):
                    fd = number
                case ActivatedAddress(name):
                    fd = activated.get(name)
            if fd is not None and (seen := cookie_of_listener(fd)):
                self.inherited[bind.address] = fd, seen
        self._held: dict[int, Listener] = {}
        """By cookie, what came back and no bind has claimed yet."""

    def __len__(self) -> int:
        return len(self._held)

    @property
    def most(self) -> int:
        """So many listeners a worker may bring back; nobody holds more."""
        return max(MOST_RETURNED, len(self._record.listeners) if self._record is not None else 0)

    def add(self, listener: Listener) -> None:
        """Take one; one that is here already is closed."""
        number = cookie(listener.socket)
        if number in self._held:
            close_at_once(listener.socket)
        else:
            self._held[number] = listener

    def acceptable(self, listeners: Sequence[Listener], *, is_open: bool) -> list[Listener]:
        """Those of a worker's, who may bring anything, that are taken; the others are closed.

        Args:
            listeners: what it brings.
            is_open: whether custody is whole already: then all are let go of later, without a word.

        Raises:
            PeerError: one is of another network namespace. Nothing is closed.
        """
        record = self._record
        ours = {known.cookie for known in record.listeners} if record is not None else set()
        ours |= {number for _, number in self.inherited.values()} if record is None else set()
        wanted: list[Listener] = []
        strange: list[Listener] = []
        for listener in listeners:
            is_known = is_open or cookie(listener.socket) in ours
            if record is None and not is_known and not is_of_our_network(listener.socket):
                raise PeerError(f"its listener '{listener.name}' is in another network namespace than we are")
            taken = is_known or (record is None and self._is_asked_for(listener))
            (wanted if taken else strange).append(listener)
        for listener in strange:
            why = "is not on record" if record is not None else "is none of ours"
            logger.warning("listener '%s' that a worker brought %s: not taken", listener.name, why)
            close_at_once(listener.socket)
        return wanted

    def _is_asked_for(self, listener: Listener) -> bool:
        """Whether it looks like one of ours: of others there is no end, and of those that do there are some."""
        info, some = listener.info, len(self._held) < MOST_RETURNED
        looks = some and any(resembles(address, info.address) for address in self._asked)
        return looks and is_behind_its_path(listener.socket)

    def has_all_of(self, record: Record) -> bool:
        """Whether all listeners on record are here again."""
        return {listener.cookie for listener in record.listeners} <= self._held.keys()

    def claim(self, binds: Sequence[Bind], known: Mapping[int, ListenerRecord]) -> dict[ListenerKey, Listener]:
        """What came back, by the key of the bind that it is for: of its own name first, then of any."""
        claimed: dict[ListenerKey, Listener] = {}
        for by_name in (True, False):
            for bind in binds:
                if (key := listener_key(bind)) in claimed:
                    continue
                for number, listener in self._held.items():
                    if (listener.name == bind.name or not by_name) and self._was_for(bind, number, known.get(number)):
                        claimed[key] = self._held.pop(number)
                        break
        return claimed

    def without_file(self, bind: Bind, known: Mapping[int, ListenerRecord]) -> Listener | None:
        """What is on record for a bind, and came back, though its file is lost; None if nothing did."""
        for number, entry in known.items():
            if number in self._held and entry.file is not None and entry.bind == str(bind.address):
                file = UnixFile(entry.bind.removeprefix("unix:"), *entry.file)
                return replace(self._held.pop(number), name=bind.name, file=file)
        return None

    def wanted_still(
        self, keys: AbstractSet[ListenerKey], known: Mapping[int, ListenerRecord]
    ) -> list[tuple[ListenerKey, Listener]]:
        """Those that no bind asked for, and the fleet wants."""
        found = []
        for number, entry in known.items():
            key = ListenerKey(entry.name, entry.bind)
            if number in self._held and key in keys:
                file = UnixFile(entry.bind.removeprefix("unix:"), *entry.file) if entry.file is not None else None
                found.append((key, replace(self._held.pop(number), name=entry.name, file=file)))
        return found

    def with_file(self, listener: Listener, bind: Bind, known: Mapping[int, ListenerRecord]) -> Listener:
        """One that was claimed, with the file that is ours; a second copy of it would outlive the custody."""
        fd, _ = self.inherited.get(bind.address, (None, None))
        if fd is not None and fd != listener.socket.fileno():
            os.close(fd)
        return replace(listener, file=_file_of(bind, known.get(cookie(listener.socket))))

    def _was_for(self, bind: Bind, number: int, entry: ListenerRecord | None) -> bool:
        """Whether a bind asked for this: the record knows what it was asked for as, else it is known by its looks."""
        if bind.address in self.inherited:
            return self.inherited[bind.address][1] == number
        if entry is not None:
            fits = entry.bind == str(bind.address)
        else:
            fits = resembles(bind.address, self._held[number].info.address)
        try:
            return fits and (_file_of(bind, entry) is not None or not isinstance(bind.address, UnixAddress))
        except FileNotFoundError:
            return False  # nobody can connect to it any more

    def drop(self, known: Mapping[int, ListenerRecord], kept: AbstractSet[str] = frozenset()) -> None:
        """Close what is not wanted any more, and remove the files that were ours.

        Args:
            known: by cookie, what is on record; the file of one that nobody brought back is ours as well.
            kept: the binds of what is held.
        """
        for listener in self._held.values():
            close_at_once(listener.socket)
        self._held.clear()
        for entry in known.values():
            if entry.file is not None and entry.bind not in kept:
                UnixFile(entry.bind.removeprefix("unix:"), *entry.file).remove()


def _file_of(bind: Bind, entry: ListenerRecord | None) -> UnixFile | None:
    """The socket file of a listener that was given back.

    Raises:
        FileNotFoundError: it is gone, or somebody else's is in its place.
    """
    if not isinstance(bind.address, UnixAddress):
        return None
    found = UnixFile.of(bind.address.path)
    if entry is not None and entry.file is not None and entry.file != (found.device, found.inode):
        raise FileNotFoundError(bind.address.path)
    return found
