"""Decides which of the protections of ``docs/security.md`` are off here, and says how each is had."""

from __future__ import annotations

from collections.abc import Iterator

from stillup.client.doctor.facts import Facts, ProtectionFacts, SupervisorFacts
from stillup.client.doctor.findings import Finding


def protections(facts: Facts) -> list[Finding]:
    """All that there is to say of them: nothing of a service that does not answer."""
    seen = facts.protections
    found = [Finding("directories", "problem", why, _ELSEWHERE) for why in seen.hazards]
    if facts.service.runs and seen.workers:
        found += [*_workers(facts.service, seen), *_neighbours(seen), *_binds(facts.service, seen)]
    return found


_ELSEWHERE = "choose a --runtime-dir whose levels are all root's, or the service's user's; 'stillup run' refuses this"


def _workers(service: SupervisorFacts, seen: ProtectionFacts) -> Iterator[Finding]:
    what = "worker user"
    shared = seen.workers.get(service.uid) if service.uid is not None else None
    if service.uid is None:
        return
    if shared is None:
        yield Finding(what, "ok", f"workers are {', '.join(sorted(seen.workers.values()))}, the supervisor is not")
    elif service.uid == 0:
        advice = (
            "--worker-user USER: the supervisor stays root, the app is not; or run the service as a user of its own"
        )
        yield Finding(what, "warning", "workers are root, as the supervisor: so is whoever gets into the app", advice)
    else:
        seen_as = (
            f"workers are {shared}, as the supervisor: an app may do to it, and to its files, all that it may itself"
        )
        advice = "start the supervisor as root with --worker-user USER, if the app is not to be trusted that far"
        yield Finding(what, "warning", seen_as, advice)


def _neighbours(seen: ProtectionFacts) -> Iterator[Finding]:
    if seen.neighbours:
        users = ", ".join(sorted(seen.workers.values()))
        text = f"{users} also has {', '.join(seen.neighbours)}: processes of one user can do anything to each other"
        yield Finding("shared user", "warning", text, "give the service's workers a user that nothing else has")


def _binds(service: SupervisorFacts, seen: ProtectionFacts) -> Iterator[Finding]:
    for address in seen.open_binds if not seen.says_who_forwards else ():
        believed = "root" if service.uid == 0 else f"root and uid {service.uid}"
        text = f"anybody can connect to {address}; by default X-Forwarded-* is believed from {believed} alone"
        advice = (
            "let in a proxy's group, which is believed then (unix:/path,mode=0660,group=GROUP), "
            "or say whose word is taken (--forwarded-allow-ips)"
        )
        yield Finding("binds", "warning", text, advice)
