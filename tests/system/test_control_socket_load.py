"""Crowds at the control socket: what silence and garbage cost those who have something to say there."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from stillup.core.caller_limits import Limits
from stillup.daemon.control.peer_identities import THREADS
from tests.system import malformed_requests
from tests.system.harness import FULL, Service, connect, descriptors, eventually
from tests.system.other_user import NOBODY, being, let_through, open_folder
from tests.system.steady_load import Traffic

RELOADS = 10 if FULL else 2
MALFORMED = 10_000 if FULL else 1_000
AT_ONCE = 25
"""Malformed requests of each sender."""


@pytest.fixture
def service() -> Iterator[Service]:
    with open_folder() as folder:
        service = Service(folder)
        service.write()
        with service:
            yield service


class _Silent:
    """Connections that say nothing, of one user or of two; whichever is ended is made anew when asked to."""

    def __init__(self, path: str, count: int, uids: list[int]) -> None:
        self._path = path
        self._uids = uids
        self._held: dict[int, list[socket.socket]] = {uid: [] for uid in uids}
        self._each = count // len(uids)
        self.made = 0

    def press(self) -> None:
        """Have them all, again."""
        for uid, held in self._held.items():
            self._held[uid] = [sock for sock in held if not _ended(sock)]
            with being(uid):
                while len(self._held[uid]) < self._each:
                    self._held[uid].append(self._connect())

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self._path)  # without a timeout: it waits where the backlog is full, instead of failing
        self.made += 1
        return sock

    def close(self) -> None:
        for held in self._held.values():
            for sock in held:
                sock.close()


def _ended(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        ended = not sock.recv(1)
    except BlockingIOError:
        return False
    except ConnectionError:
        ended = True
    if ended:
        sock.close()
    return ended


def _connections(service: Service) -> int:
    """Open sockets of the supervisor."""
    return sum(what.startswith("socket:") for what in descriptors(service.process.pid).values())


def _median(service: Service) -> float:
    """Seconds for a look at the service, connection and all; the median of 100."""
    took = []
    for _ in range(100):
        begun = time.perf_counter()
        connection = connect(f"unix:{service.runtime}/control.sock")
        connection.request("GET", "/v1/status")
        assert connection.getresponse().status == 200
        connection.close()
        took.append(time.perf_counter() - begun)
    return statistics.median(took)


def test_a_thousand_silent_connections_stall_no_rollout(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside 1,000 connections that say nothing reloads succeed under load, with no failed request; status answers.

    The thousand are of root and of a stranger, half each, where the test may be both.
    """
    uids = [os.geteuid()]
    if os.geteuid() == 0:
        uids.append(NOBODY)
        let_through(service)
    path = f"{service.runtime}/control.sock"
    others = _connections(service)
    silent = _Silent(path, 1000, uids)
    try:
        with Traffic(service.address()) as traffic:
            for number in range(2, 2 + RELOADS):
                silent.press()
                assert _connections(service) <= others + Limits().most
                connection = connect(f"unix:{path}")
                connection.request("POST", "/v1/reload?wait=true")
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                connection.close()
                status = service.status()
                assert status.rollout is not None
                assert (status.rollout.id, status.rollout.outcome) == (number, "succeeded")
            traffic.goes_on()
            requests = len(traffic.pids)
    finally:
        silent.close()
    with capsys.disabled():
        print(f"\n{RELOADS} reloads beside {silent.made} silent connections: 0 of {requests} requests failed")
    assert requests >= 50 * RELOADS


def test_malformed_requests_cost_nothing_that_stays(service: Service) -> None:
    """After thousands of them status answers within 50 ms, with no descriptor more and hardly more memory.

    The log has few lines of it, and no traceback.
    """
    path = f"{service.runtime}/control.sock"
    process = psutil.Process(service.process.pid)
    _send(path, list(malformed_requests.requests(200, seed=1)))  # what is imported at the first of a kind is no leak
    eventually(lambda: _median(service) < 0.05, "it answers")
    before = descriptors(service.process.pid)
    memory, threads = process.memory_info().rss, process.num_threads()
    all_of_them = list(malformed_requests.requests(MALFORMED))
    with ThreadPoolExecutor(2) as senders:
        for sent in [senders.submit(_send, path, all_of_them[part::2]) for part in range(2)]:
            sent.result(60)
    eventually(lambda: _median(service) < 0.05, "it answers as soon as before")
    eventually(lambda: len(descriptors(service.process.pid)) <= len(before), "no descriptor more")
    assert process.memory_info().rss - memory < 16 * 1024 * 1024
    assert process.num_threads() <= threads + THREADS
    assert len(service.log().splitlines()) < 100, service.log()
    service.client.reload(wait="cut-over")


def _send(path: str, requests: list[bytes]) -> None:
    """Send each on a connection of its own, some at a time; after these another client is answered."""
    for begin in range(0, len(requests), AT_ONCE):
        with contextlib.ExitStack() as stack:
            for request in requests[begin : begin + AT_ONCE]:
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.connect(path)
                sock.setblocking(False)
                with contextlib.suppress(ConnectionError, BlockingIOError):
                    sock.send(request)
            other = stack.enter_context(socket.socket(socket.AF_UNIX))
            other.connect(path)
            other.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert other.recv(65536).startswith(b"HTTP/1.1 200 ")
