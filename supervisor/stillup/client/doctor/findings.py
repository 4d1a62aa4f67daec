"""Decides from the facts: each finding says what was seen and what to do. Nothing is looked up here."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from stillup.client import full_database
from stillup.client.doctor.facts import (
    ConnectResult,
    DirectoryFacts,
    EnvironmentFacts,
    Facts,
    FileFacts,
    KernelFacts,
    SecurityFacts,
    SupervisorFacts,
)
from stillup.core.states import Birth
from stillup.wire.runtime_paths import CONTROL, HANDOFF, LOCK

Verdict = Literal["ok", "warning", "problem"]

LONGEST_PATH: Final = 107
"""Bytes of a socket's path (unix(7))."""
OLDEST_KERNEL: Final = (5, 10)
PYTHONS: Final = ((3, 11), (3, 15))
UVICORNS: Final = ((0, 30), (0, 54))
"""The oldest and the newest that the tests run on."""
CONNECTIONS: Final = 10_000
"""Connections of a busy service: each is a descriptor."""
RESERVE: Final = 500
"""Descriptors beside those."""
FEW: Final = 1024
"""Descriptors; with less a service is in trouble long before it is busy."""
BACKLOG: Final = 2048
"""What 'stillup run' asks for if nothing else is said: uvicorn's default."""
STORE_KEPT: Final = 254
"""The systemd from which on FileDescriptorStorePreserve= is there."""
SLOW_CLOCKS: Final = frozenset({"hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies"})
"""Clock sources that are read by a system call and slow hardware instead of by the processor."""
_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    check: str
    verdict: Verdict
    seen: str
    advice: str = ""
    """What to do; empty if nothing is."""


def findings(facts: Facts) -> list[Finding]:
    """All of them, in the order in which they are worth reading."""
    return [
        *supervisor(facts.place, facts.service),
        *directory(facts.place, facts.service, facts.uid),
        *sockets(facts.place, facts.service),
        *listeners(facts.service),
        *rollouts(facts.service),
        *births(facts.service),
        *crossing(facts.service),
        role(facts.service, facts.uid),
        descriptors(facts.service, facts.kernel),
        backlog(facts.service, facts.kernel),
        *kernel(facts.kernel),
        security(facts.security),
        *systemd(facts.service, facts.environment),
        *environment(facts.environment),
    ]


def supervisor(place: DirectoryFacts, service: SupervisorFacts) -> Iterator[Finding]:
    """Whether one runs and answers, and what one that died has left."""
    what = "supervisor"
    if service.runs and service.denied:
        advice = "ask again as root or as its user, or have them let you in: a group on the socket, and a role"
        yield Finding(what, "warning", service.trouble, advice)
    elif service.runs and service.trouble:
        pid = f"pid {service.pid}" if service.pid is not None else "it"
        advice = f"see whether {pid} is stopped (kill -CONT), starved or stuck on a disk; its log says what it did last"
        yield Finding(what, "problem", service.trouble, advice)
    elif service.runs:
        seen = f"stillup {service.version}, pid {service.pid}, {service.state}, workers: {service.workers}"
        yield Finding(what, "ok", seen)
    elif place.orphans:
        seen = f"it has died; {len(place.orphans)} of its workers serve on without it ({', '.join(place.orphans)})"
        yield Finding(what, "warning", seen, "'stillup run' as before takes them over, 'stillup stop' ends them")
    elif place.lock_holder is not None:
        seen = f"pid {place.lock_holder} holds the lock of {place.path}, and nothing answers on {CONTROL}"
        if place.file(CONTROL) is None:
            advice = f"{CONTROL} was removed: kill -USR2 {place.lock_holder} makes a new one, no connection closes"
        else:
            advice = f"it is starting, or stuck: see its log, and what pid {place.lock_holder} does"
        yield Finding(what, "problem", seen, advice)
    elif service.trouble:
        yield Finding(what, "warning", service.trouble)
    else:
        yield Finding(what, "ok", f"none runs in {place.path}")


def directory(place: DirectoryFacts, service: SupervisorFacts, uid: int) -> Iterator[Finding]:
    """Whether the runtime directory is one that a supervisor can use, and that stays."""
    what, there = "runtime directory", place.directory
    length = len(os.fsencode(f"{place.path}/{CONTROL}"))
    if length > LONGEST_PATH:
        seen = f"{place.path}/{CONTROL} has {length} bytes; a socket's path has at most {LONGEST_PATH}"
        yield Finding(what, "problem", seen, "choose a shorter --runtime-dir")
    if there is None and not place.can_be_made:
        seen = f"{place.path} is not there, and uid {uid} may not make it"
        yield Finding(what, "problem", seen, "make it as root and give it to the service's user, or choose another")
    elif there is None:
        yield Finding(what, "ok", f"{place.path} is not there; 'stillup run' makes it, for its user alone")
    elif there.kind != "directory":
        yield Finding(what, "problem", f"{place.path} is no directory", "move it away, or choose another --runtime-dir")
    else:
        yield _owned(place, there, service, uid)
    for hazard in place.hazards:
        yield Finding(what, "problem", hazard, "'stillup run' refuses it: choose another --runtime-dir")
    yield from _stays(place, uid)


def _owned(place: DirectoryFacts, there: FileFacts, service: SupervisorFacts, uid: int) -> Finding:
    what, seen = "runtime directory", f"{place.path} is {_mode(there)}"
    owner = service.uid if service.uid is not None else uid
    if there.mode & _WRITABLE:
        who = "anybody" if there.mode & stat.S_IWOTH else f"group {there.group}"
        advice = f"chmod go-w {place.path}: {who} can put sockets there; 'stillup run' refuses it as it is"
        return Finding(what, "problem", seen, advice)
    if there.uid not in (0, owner) and (owner != 0 or service.uid is not None):
        return Finding(
            what, "problem", seen, f"a supervisor of uid {owner} refuses it: chown it, or choose another --runtime-dir"
        )
    if not place.open:
        advice = "its owner lets a group through: chgrp GROUP and chmod g+x, and gives it a role"
        return Finding(what, "warning", f"{seen}: not open to uid {uid}", advice)
    return Finding(what, "ok", seen)


def _stays(place: DirectoryFacts, uid: int) -> Iterator[Finding]:
    what = "runtime directory"
    around = place.parent
    default = re.match(r"/tmp/stillup-\d+/", place.path)  # noqa: S108 - to warn about it
    if around is not None and default and not _alone(around, uid):
        seen = f"{around.name} in /tmp is {_mode(around)}: another user made it first"
        advice = "'stillup run' refuses it: have root remove it, or choose a --runtime-dir or set XDG_RUNTIME_DIR"
        yield Finding(what, "problem", seen, advice)
    elif re.match(r"/(var/)?tmp/", place.path):
        seen = f"{place.path} is in a directory for temporary files"
        advice = (
            "systemd-tmpfiles may remove what is old there, and PrivateTmp= hides it from others: "
            "choose a --runtime-dir below /run, or set XDG_RUNTIME_DIR"
        )
        yield Finding(what, "warning", seen, advice)
    elif place.path.startswith("/run/user/") and place.lingers is False:
        seen = f"{place.path} goes when its user has logged out, and user services end then"
        yield Finding(what, "warning", seen, "loginctl enable-linger keeps it")


def _alone(file: FileFacts, uid: int) -> bool:
    """Whether that user and root alone can write to it."""
    return file.uid in (0, uid) and not file.mode & _WRITABLE


def sockets(place: DirectoryFacts, service: SupervisorFacts) -> Iterator[Finding]:
    """Whether socket files are alive, and which users their modes let connect."""
    for file in place.files:
        if file.kind != "socket":
            if file.name in (CONTROL, HANDOFF):
                yield Finding(file.name, "problem", f"{place.path}/{file.name} is no socket", "move it away")
        elif file.answer is ConnectResult.REFUSED:
            seen = f"{place.path}/{file.name}: nothing listens; the process that made it has died"
            yield Finding(file.name, "warning", seen, "nothing to do: the next 'stillup run' here replaces it")
        elif file.name != HANDOFF:
            yield _reach(place, file)
    lock = place.file(LOCK)
    if lock is not None and place.lock_holder is None and not service.runs:
        seen = f"{place.path}/{LOCK} is there, and no process here holds it"
        yield Finding(LOCK, "ok", seen, "nothing to do: the kernel lets it go with its holder")


def _reach(place: DirectoryFacts, file: FileFacts) -> Finding:
    """Which users the modes let connect; a role is needed all the same."""
    around = place.directory
    seen = f"{file.name} is {_mode(file)}"
    if around is None:
        return Finding(file.name, "ok", seen)
    everybody_through = bool(around.mode & stat.S_IXOTH)
    group_through = everybody_through or (bool(around.mode & stat.S_IXGRP) and around.gid == file.gid)
    if everybody_through and file.mode & stat.S_IWOTH:
        advice = f"a role is needed all the same; chmod o-w {place.path}/{file.name} keeps strangers from trying"
        return Finding(file.name, "warning", f"{seen}: anybody can connect", advice)
    who = [file.user or f"uid {file.uid}", *(["root"] if file.uid != 0 else [])]
    if file.mode & stat.S_IWGRP and group_through:
        who.append(f"group {file.group or file.gid}")
    elif file.mode & stat.S_IWGRP and file.gid != around.gid:
        seen = f"{seen}, and its group cannot pass the directory, which is {_mode(around)}"
        advice = f"chgrp {file.group or file.gid} {place.path} && chmod g+x {place.path}"
        return Finding(file.name, "warning", seen, advice)
    return Finding(file.name, "ok", f"{seen}: {', '.join(who)} can connect")


def listeners(service: SupervisorFacts) -> Iterator[Finding]:
    """Whether clients can connect to each listener."""
    for seen in service.unreachable:
        yield Finding("listeners", "problem", seen, "'stillup reload' puts it back; see who removes files there")


def rollouts(service: SupervisorFacts) -> Iterator[Finding]:
    """Whether the last one failed since a database has no room for twice the workers."""
    rejected = service.rejected
    failure = rejected.failure if rejected is not None else None
    if rejected is None or failure is None or not (words := full_database.refusal(failure)):
        return
    seen = f"gen {rejected.generation} was rejected: its database refused {failure.worker} ('{words}')"
    advice = "make the pools smaller (docs/guide.md, Database connections)"
    if rejected.workers_wanted > 1:
        advice = f"'stillup reload --strategy rolling --max-surge 0 --max-unavailable 1' needs no more; or {advice}"
    yield Finding("rollout", "warning", seen, advice)


def births(service: SupervisorFacts) -> Iterator[Finding]:
    """Whether its workers are forked, with which a reload is faster; and with what it would be faster still."""
    if not service.births:
        return
    seen = f"workers are {' and '.join(service.births)}"
    if Birth.SPAWNED in service.births:
        advice = "a template makes reloads faster: without --no-template, the log says why there is none"
        yield Finding("boot", "ok", f"{seen}, so that each imports everything by itself", advice)
    elif Birth.FORKED in service.births:
        advice = "--warm or --preload makes reloads faster (docs/guide.md, CPU); with --preload, the log says why not"
        yield Finding("boot", "ok", f"{seen}, and each imports the app", advice)
    else:
        yield Finding("boot", "ok", seen)


def crossing(service: SupervisorFacts) -> Iterator[Finding]:
    """Whether connections can move to the next generation."""
    if service.unmoved:
        seen = (
            f"with {' and '.join(service.unmoved)} connections stay where they are: a reload closes those that are idle"
        )
        ways = ("end TLS in a proxy before it" if why == "TLS" else "say --http httptools" for why in service.unmoved)
        yield Finding("crossing", "warning", seen, f"if they are to move: {', and '.join(ways)}")


def role(service: SupervisorFacts, uid: int) -> Finding:
    """What we may do there."""
    if not service.role:
        return Finding("role", "ok", "no supervisor to ask what this user may do")
    if service.role == "none":
        advice = (
            "an admin gives one: --viewer, --operator or --admin with a user or group, in the service's configuration"
        )
        return Finding("role", "warning", f"uid {uid} has no role there", advice)
    if service.unseen:
        seen = f"uid {uid} may look and no more: it cannot be seen whether this is a worker ({service.unseen})"
        advice = "give the supervisor CAP_SYS_PTRACE, or ask from a process that it can read (ptrace(2))"
        return Finding("role", "warning", seen, advice)
    return Finding("role", "ok", f"uid {uid} is {service.role} there")


def descriptors(service: SupervisorFacts, host: KernelFacts) -> Finding:
    """Whether the limit of descriptors is enough for a busy service."""
    what = "descriptors"
    limits, whose = (service.files, "the supervisor") if service.files is not None else (host.files, "a process here")
    if limits is None:
        return Finding(what, "ok", "the limit is not known")
    soft, hard = limits
    if hard == -1:
        return Finding(what, "ok", f"{whose} may have any number (soft limit {soft}, which is raised)")
    seen = f"{whose} may have {hard} (soft limit {soft}, which is raised to it)"
    advice = "raise it: LimitNOFILE= in a systemd unit, 'ulimit -Hn', or nofile in /etc/security/limits.conf"
    if hard < FEW:
        return Finding(what, "problem", f"{seen}: each connection of a worker is one", advice)
    if hard < CONNECTIONS + RESERVE:
        return Finding(what, "warning", f"{seen}: not enough for {CONNECTIONS} connections", advice)
    return Finding(what, "ok", seen)


def backlog(service: SupervisorFacts, host: KernelFacts) -> Finding:
    """Whether the kernel gives the listeners as long a queue as they ask for."""
    wanted = service.backlog if service.backlog is not None else BACKLOG
    if host.somaxconn is None:
        return Finding("backlog", "ok", "net.core.somaxconn is not known")
    seen = f"listeners ask for {wanted}, net.core.somaxconn is {host.somaxconn}"
    if host.somaxconn < wanted:
        advice = f"sysctl -w net.core.somaxconn={wanted} (and in /etc/sysctl.d), then start the service anew"
        return Finding("backlog", "warning", f"{seen}: a burst beyond that is not accepted", advice)
    return Finding("backlog", "ok", seen)


def kernel(host: KernelFacts) -> Iterator[Finding]:
    """Whether it has what is needed."""
    number = re.match(r"(\d+)\.(\d+)", host.release)
    oldest = ".".join(str(part) for part in OLDEST_KERNEL)
    if number is not None and (int(number[1]), int(number[2])) < OLDEST_KERNEL:
        yield Finding("kernel", "problem", f"Linux {host.release}", f"stillup needs {oldest} or newer")
    elif host.missing:
        seen = f"Linux {host.release} without {', '.join(host.missing)}"
        advice = "a container's seccomp profile may forbid it: use a newer container runtime, or allow it"
        yield Finding("kernel", "problem", seen, advice)
    else:
        without = "" if host.peer_pidfd else " (no SO_PEERPIDFD before 6.5: peers are told apart by their start time)"
        yield Finding("kernel", "ok", f"Linux {host.release}{without}")
    if not host.own_users:
        seen = "this is a user namespace that hides users: they are seen as uid 65534, which has no role"
        yield Finding("users", "warning", seen, "map them into it, or ask from inside; under systemd no PrivateUsers=")
    if host.clock in SLOW_CLOCKS:
        seen = f"the clock source is {host.clock}: each look at the clock is slow"
        advice = "see /sys/devices/system/clocksource/clocksource0; on virtual machines kvm-clock or tsc is to be had"
        yield Finding("clock", "warning", seen, advice)
    elif host.clock is not None:
        yield Finding("clock", "ok", host.clock)


def security(seen: SecurityFacts) -> Finding:
    """Whether SELinux or AppArmor is in the way."""
    what = "security"
    parts = [f"SELinux {seen.selinux}"] if seen.selinux else []
    if seen.apparmor and seen.apparmor != "unconfined":
        parts.append(f"AppArmor profile {seen.apparmor}")
    who = ", ".join(parts) or "no SELinux, no AppArmor profile"
    if seen.denials:
        advice = "ausearch -m avc (SELinux) or journalctl -k (AppArmor) shows all; allow it in the policy"
        return Finding(what, "warning", f"{who}; denied: {seen.denials[-1]}", advice)
    if parts and not seen.logs_read:
        return Finding(what, "ok", f"{who}; whether it denied anything, only root can see")
    return Finding(what, "ok", f"{who}; nothing was denied" if parts else who)


def systemd(service: SupervisorFacts, around: EnvironmentFacts) -> Iterator[Finding]:
    """Whether it is new enough, and was told what it has to know."""
    if around.systemd is None:
        yield Finding("systemd", "ok", "it does not run here")
        return
    seen = f"systemd {around.systemd}"
    if service.managed and service.notifies is False:
        advice = "Type=notify in the unit: without it the service counts as started before it serves"
        yield Finding("systemd", "warning", f"{seen} started the supervisor without a notify socket", advice)
    elif around.systemd < STORE_KEPT:
        seen = f"{seen}: FileDescriptorStorePreserve= came with {STORE_KEPT}"
        advice = "upgrade it to have sockets kept over a stop and start; a restart and a reload are not concerned"
        yield Finding("systemd", "warning" if service.managed else "ok", seen, advice if service.managed else "")
    else:
        yield Finding("systemd", "ok", seen)
    yield from stops(service)


def stops(service: SupervisorFacts) -> Iterator[Finding]:
    """Whether its unit lets it stop in its own time, and whether that is the end."""
    what, budget = "stop", service.stop_budget
    if not service.stop_command or not budget:
        return
    if service.stop_allowed is not None and service.stop_allowed < budget:
        seen = f"its unit kills it after {service.stop_allowed:g} s, and a stop may take {budget:g} s"
        advice = f"TimeoutStopSec={budget:g}: 'stillup systemd install' writes it"
        yield Finding(what, "warning", seen, advice)
    if service.stop_delay:
        seen = f"a stop is announced for {service.stop_delay:g} s (--stop-delay): nothing is kept over a restart"
        yield Finding(what, "ok", seen)
    for unit in service.sockets:
        seen = f"{unit} holds a listener, too: it listens on after a stop, and starts the service again"
        yield Finding(what, "ok", seen, f"to end the service, stop both: {service.stop_command} {unit}")


def environment(around: EnvironmentFacts) -> Iterator[Finding]:
    """Whether what is installed is what the tests run on."""
    yield _tested("Python", around.python, PYTHONS)
    number = re.match(r"(\d+)\.(\d+)", around.uvicorn)
    if number is not None:
        yield _tested("uvicorn", (int(number[1]), int(number[2])), UVICORNS)


def _tested(what: str, version: tuple[int, int], among: tuple[tuple[int, int], tuple[int, int]]) -> Finding:
    shown, oldest, newest = (".".join(str(part) for part in one) for one in (version, *among))
    seen = f"{what} {shown}"
    if among[0] <= version <= among[1]:
        return Finding("packages", "ok", seen)
    advice = f"{oldest} to {newest} is what stillup is tested with"
    return Finding("packages", "warning", seen, advice)


def _mode(file: FileFacts) -> str:
    return f"{file.mode:04o} {file.user or file.uid}:{file.group or file.gid}"
