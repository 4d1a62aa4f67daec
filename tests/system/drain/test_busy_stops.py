"""Clients that ask without a long pause, while the service is stopped for good."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from stillup.core.drain import LAME_DUCK
from tests.system.clients import Ended, Peer, request
from tests.system.harness import DEADLINE, FULL, Service

STOPS = 50 if FULL else 2
CLIENTS = 8
THINK = 0.02
"""Seconds between an answer and the next request."""
PAUSED = LAME_DUCK / 2
"""Seconds between two requests from which on a client may have asked after a long pause: this process stood still."""


def _until_told(service: Service, ready: Event) -> str:
    """Ask on one connection until an answer says that it is the last; how it ended."""
    with Peer(service.address()) as peer:
        before = time.monotonic()
        for number in range(2000):
            if number == 3:
                ready.set()
            # It may stand still until a request is out, and when the answer is there: this is the most that it can be.
            last, before = before, time.monotonic()
            try:
                try:
                    peer.send(request())
                finally:
                    pause = time.monotonic() - last
                answer = peer.answer()
            except (Ended, OSError) as error:
                return "paused" if pause > PAUSED else f"not told: {error!r} after {number} answers and {pause:g} s"
            if answer.closes:
                return "told"
            Event().wait(THINK)
    return "never told"


def test_busy_clients_are_told_by_an_answer(tmp_path: Path) -> None:
    """No client that asks every 20 ms finds its connection closed: its last answer has said so."""
    service = Service(tmp_path, "main:app")
    service.write()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for number in range(STOPS):
            ready = [Event() for _ in range(CLIENTS)]
            with service:
                asking = [pool.submit(_until_told, service, one) for one in ready]
                assert all(one.wait(20) for one in ready)
                service.process.terminate()
                ends = [one.result() for one in asking]
                assert set(ends) <= {"told", "paused"}, f"stop {number}: {ends}"
                assert service.process.wait(DEADLINE) == 0
