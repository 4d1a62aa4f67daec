"""Finds the service that a command means, as ``stillup run`` would call it here; never another one instead."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import msgspec

from stillup.client.client_errors import NotRunningError
from stillup.client.control_client import Client
from stillup.client.runtime_place import LOOK, entries, peer, runs, visit
from stillup.client.service_choice import FILE, FLAG, MANAGER, Choice, Said, choice
from stillup.errors import StillupError, UsageError
from stillup.wire.runtime_paths import CONTROL, RECORD, SYSTEM, bases, check_name

_MOST_NAMED: Final = 8
"""Services that a message lists."""


class Found(msgspec.Struct, frozen=True):
    """The service that is meant."""

    directory: str
    """Its runtime directory, whether it runs or not."""
    name: str
    """What it is called; the directory, where nobody said a name."""
    source: str = ""
    """For people, who said the name or the directory; empty for the working directory's own."""


def find(name: str | None, runtime_dir: str | None, *, config: str | None = None, or_orphaned: bool = False) -> str:
    """The runtime directory of the service that is meant: ``look_up`` has the rule and the errors."""
    return look_up(name, runtime_dir, config=config, or_orphaned=or_orphaned).directory


def look_up(
    name: str | None, runtime_dir: str | None, *, config: str | None = None, or_orphaned: bool = False
) -> Found:
    """The service that is meant.

    Named by an argument, by a variable (STILLUP_NAME, STILLUP_RUNTIME_DIR) or by the configuration file here, it is
    that one, whether it runs or not. Otherwise it is the working directory's own: the one with its name, or that was
    started in it.

    Args:
        name: the service's.
        runtime_dir: where its control socket is.
        config: the configuration file that says these; the one in the working directory.
        or_orphaned: one whose supervisor has ended without a stop may be meant, too.

    Raises:
        NotRunningError: nothing is named, and no service of this directory runs; the message names those that do. Or
            in the directory that is meant runs a service of another name.
        UsageError: several services may be meant, or the configuration file cannot be read.
    """
    chosen = choice(name, runtime_dir, config)
    place = chosen.place
    if place is not None and place.rank == FILE and chosen.manager is not None and runs(chosen.manager.value):
        place = chosen.manager  # the file is of the unit's working directory, and need not be the one that it runs by
    if place is not None:
        return _at(place, chosen.name)
    if chosen.name is not None:
        return Found(_place(check_name(chosen.name.value), or_orphaned=or_orphaned), *_words(chosen.name))
    return _of_directory(chosen, or_orphaned=or_orphaned)


def others(directory: str) -> list[str]:
    """The names of the services that run here, but for the one in that directory."""
    return [os.path.basename(place) for place in candidates() if place != directory and runs(place)]


def candidates() -> list[str]:
    """All the directories that may be the runtime directory of a service that this user may connect to."""
    found = sorted(f"{base}/{entry}" for base in bases(os.geteuid(), os.environ) for entry in entries(base))
    return [place for place in found if os.geteuid() == 0 or os.path.dirname(place) != SYSTEM or _is_open(place)]


def listed(names: Sequence[str]) -> str:
    """Names for a message: each in quotes, the first few of them."""
    shown = ", ".join(f"'{name}'" for name in names[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown} and {len(names) - _MOST_NAMED} more"


def is_orphaned(directory: str) -> bool:
    """Whether a supervisor was there and did not come to its end."""
    try:
        with visit(directory) as place:
            os.stat(RECORD, dir_fd=place.fd, follow_symlinks=False)
    except (OSError, NotRunningError):
        return False
    return True


def _at(place: Said, name: Said | None) -> Found:
    """The service in a directory; a name that is said at least as strongly has to be its own."""
    # A unit's own commands mean the unit's own supervisor, whatever a file in its working directory says.
    if name is None or name.rank > place.rank or (place.rank == MANAGER and name.rank != FLAG):
        return Found(place.value, *_words(place))
    called = _name_at(place.value)
    if called != name.value:
        if name.rank < place.rank and (elsewhere := _running(check_name(name.value), or_orphaned=False)):
            return Found(elsewhere, *_words(name))
        if called is not None:
            raise NotRunningError(
                f"'{name.value}' is meant ({name.source}), and '{called}' runs in {place.value} ({place.source}): "
                f"'--name {called}' says that it is that one"
            )
    return Found(place.value, *_words(name))


def _name_at(directory: str) -> str | None:
    """What the service in a directory calls itself; None if nobody says."""
    try:
        return Client(directory, timeout=LOOK).status().name
    except StillupError:
        return None


def _words(said: Said) -> tuple[str, str]:
    return said.value, said.source


def _running(name: str, *, or_orphaned: bool) -> str | None:
    places = (f"{base}/{name}" for base in bases(os.geteuid(), os.environ))
    return next((place for place in places if runs(place) or (or_orphaned and is_orphaned(place))), None)


def _place(name: str, *, or_orphaned: bool) -> str:
    return _running(name, or_orphaned=or_orphaned) or f"{bases(os.geteuid(), os.environ)[0]}/{name}"


def _of_directory(chosen: Choice, *, or_orphaned: bool) -> Found:
    """The working directory's own service, by its name or because it was started here."""
    running = [place for place in candidates() if runs(place) or (or_orphaned and is_orphaned(place))]
    here = [place for place in running if _was_started_here(place)]
    named = next(
        (
            f"{base}/{chosen.default}"
            for base in bases(os.geteuid(), os.environ)
            if f"{base}/{chosen.default}" in running
        ),
        None,
    )
    own = [named] if named in here or (named and not here) else [*([named] if named else []), *here]
    if len(own) == 1:
        return Found(own[0], os.path.basename(own[0]))
    if own:
        names = ", ".join(os.path.basename(place) for place in own)
        raise UsageError(f"several services of this directory run; say which with --name: {names}")
    if not running:
        looked = ", ".join(bases(os.geteuid(), os.environ))
        raise NotRunningError(f"no supervisor runs here (looked in {looked}); --runtime-dir says where else")
    names = listed([os.path.basename(place) for place in running])
    called = f"is named '{chosen.default}' or " if chosen.default else ""
    raise NotRunningError(
        f"no service of this directory runs: none {called}was started in it; what runs is {names}: "
        "--name says that it is meant"
    )


def _was_started_here(directory: str) -> bool:
    """Whether the working directory of its supervisor, or of a worker that one has left, is ours."""
    try:
        here = os.stat(".")
        with visit(directory) as place, place.connect(LOOK) as sock:
            pids = [peer(sock)[0]]
    except (OSError, NotRunningError):
        pids = _left_behind(directory)
    return any(_works_in(pid, here) for pid in pids if pid > 0)


def _left_behind(directory: str) -> list[int]:
    if not is_orphaned(directory):
        return []
    from stillup.client.orphans import orphans  # noqa: PLC0415 - 15 ms that are for a supervisor that has died

    with orphans(directory) as left:
        return [orphan.process.pid for orphan in left]


def _works_in(pid: int, here: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/cwd"), here)
    except OSError:  # it has gone, or is another user's
        return False


def _is_open(directory: str) -> bool:
    return os.access(f"{directory}/{CONTROL}", os.W_OK, effective_ids=True)
