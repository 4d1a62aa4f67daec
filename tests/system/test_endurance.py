"""Many reloads in a row leave nothing behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.system.harness import Service, descriptors, eventually

RELOADS = 100


def _looks(pid: int) -> Iterator[int]:
    for _ in range(20):
        yield len(descriptors(pid))
        time.sleep(0.01)


def test_a_hundred_reloads_are_flat(tmp_path: Path) -> None:
    """After 100 reloads the supervisor has the descriptors, threads and children that it had after 10, and its memory.

    Memory is given 10%: an allocator keeps some of what it had.
    """
    service = Service(tmp_path)
    service.write()
    with service:
        supervisor = psutil.Process(service.process.pid)

        def reload(number: int) -> None:
            asked = service.client.reload()
            assert service.settled(asked.id).outcome == "succeeded"
            eventually(lambda: service.client.rollout(asked.id).state == "done", "the old generation has left")
            assert service.generations() == [number + 1]

        def measure() -> dict[str, int]:
            # The least of many looks: a connection of ours to the control socket may still be about to close.
            return {
                "descriptors": min(_looks(supervisor.pid)),
                "threads": supervisor.num_threads(),
                "children": len(supervisor.children(recursive=True)),
                "zombies": sum(child.status() == psutil.STATUS_ZOMBIE for child in supervisor.children()),
            }

        for number in range(1, 11):
            reload(number)
        before, memory_before = measure(), supervisor.memory_full_info().uss
        for number in range(11, RELOADS + 1):
            reload(number)
        after, memory_after = measure(), supervisor.memory_full_info().uss
        print(f"{RELOADS} reloads: {before} -> {after}, USS {memory_before >> 10} -> {memory_after >> 10} KiB")
        assert after == before
        assert after["children"] == 1
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
