"""Many reloads in a row leave nothing behind."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from tests.system.harness import FULL, Service, alone, descriptors, eventually

WARM_UP, RELOADS = (10, 100) if FULL else (6, 12)
"""How many of the reloads warm it up."""
POOLS = 3
"""So often a pool may have grown meanwhile, and as many reloads more are looked at."""


def is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it was reaped a moment ago
        return False


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> set[str]:
    """Of what there is more. Less is none of a reload's doing: something was under way when it was counted first."""
    return {what for what in before if after[what] > before[what]}


def test_many_reloads_are_flat(tmp_path: Path) -> None:
    """After many reloads the supervisor has the descriptors, threads, children and memory that it had after the first.

    Memory is given 10%: an allocator keeps some of what it had. A pool of threads may grow, to its bound, when much
    is to be done at a time; what a reload leaves is left by all of them.
    """
    service = Service(tmp_path)
    service.write()
    with service:
        supervisor = psutil.Process(service.process.pid)

        def reload(number: int) -> None:
            assert service.client.reload(wait="drained").outcome == "succeeded"
            assert service.generations() == [number + 1]

        def measure() -> dict[str, int]:
            return {
                "descriptors": len(descriptors(alone(service))),
                "threads": supervisor.num_threads(),
                "children": len(supervisor.children(recursive=True)),
                "zombies": sum(map(is_zombie, supervisor.children())),
            }

        def reloaded(numbers: range) -> tuple[dict[str, int], dict[str, int]]:
            """What there is before some reloads, and after them."""
            # Whoever was asked, or has ended, may be seen for another moment.
            before = eventually(lambda: seen if not (seen := measure())["zombies"] else None, "the dead are reaped")
            for number in numbers:
                reload(number)
            after: dict[str, int] = {}

            def as_before() -> bool:
                after.update(measure())
                return not grown(before, after)

            with suppress(AssertionError):  # what differs is said below
                eventually(as_before, "all is as before", deadline=10)
            return before, after

        for number in range(1, WARM_UP + 1):
            reload(number)
        memory_before = supervisor.memory_full_info().uss
        count = RELOADS - WARM_UP
        for first in range(WARM_UP + 1, WARM_UP + 1 + POOLS * count, count):
            before, after = reloaded(range(first, first + count))
            memory_after = supervisor.memory_full_info().uss
            print(f"{count} reloads: {before} -> {after}, USS {memory_before >> 10} -> {memory_after >> 10} KiB")
            assert grown(before, after) <= {"threads"}
            if not grown(before, after):
                break
        assert not grown(before, after)
        assert after["children"] == 2, "the worker, and the template"
        assert after["zombies"] == 0
        assert memory_after < memory_before * 1.1
        files = {path.name for path in service.runtime.iterdir()}
        assert files - {path.name for path in service.runtime.glob("figures-*")} == {
            "control.sock",
            "events.ndjson",
            "figures.json",
            "handoff.sock",
            "lock",
            "record.json",
        }
    assert not service.runtime.exists()
