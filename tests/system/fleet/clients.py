"""Clients that ask an address in a network while something happens there, and what they notice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from benchmarks.connection import Target
from benchmarks.load import Load, Loss, Mix, Report
from tests.system.fleet.network import Network
from tests.system.manager.installed_units import in_network_of


def under_load(
    network: Network, address: str, mix: Mix, happens: Callable[[], None], *, requests: int = 0
) -> tuple[Report, Counter[str]]:
    """Let it happen, again until there were so many requests or one failed; what they noticed, and how ends came."""
    reports: list[Report] = []
    ends: Counter[str] = Counter()

    def note(loss: Loss) -> None:
        ends[loss.how] += 1

    async def work() -> None:
        async with Load(Target.parse(address), mix, seed=1, lost=note) as load:
            await load.wait_every_client(deadline=20)
            await asyncio.to_thread(happens)
            while load.report.requests < requests and not load.report.failed:
                await asyncio.to_thread(happens)
            if not load.report.failed:  # else some may ask an address that nobody has any more
                await load.wait_every_client(2, deadline=20)
            reports.append(await load.stop(deadline=20))

    in_network_of(network, lambda: asyncio.run(work()))
    print(reports[0], flush=True)
    return reports[0], ends
