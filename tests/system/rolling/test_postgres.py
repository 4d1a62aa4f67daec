"""A database whose connections do not suffice for twice the workers: 25, for 2 workers with a pool of 10 each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.system.clients import Ended, Peer, request
from tests.system.harness import FULL, ROOT, Service, eventually
from tests.system.rolling.postgres_server import PostgresServer, postgres, program
from tests.system.steady_load import Traffic

pytestmark = pytest.mark.skipif(program("postgres") is None, reason="PostgreSQL is not installed")

CONNECTIONS, WORKERS, POOL = 25, 2, 10
RELOADS = 20 if FULL else 3
NO_SURGE = ("--max-surge", "0", "--max-unavailable", "1")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres(CONNECTIONS) as server:
        yield server


def service(folder: Path, server: PostgresServer, *options: str, eager: bool) -> Service:
    environment = {"POSTGRES": server.socket, "POOL": str(POOL), "EAGER": "yes" if eager else ""}
    app = ("tests.system.rolling.postgres_app:app", "--app-dir", str(ROOT), "--no-access-log")
    return Service(folder, *app, *options, workers=WORKERS, environment=environment)


class Streams:
    """Clients that read streams, one after the other on one connection, each to its end."""

    def __init__(self, address: str, count: int) -> None:
        self.failures: list[str] = []
        self.ended = 0
        """Streams that were read to their end."""
        self._address = address
        self._open = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._read) for _ in range(count)]
        self._done = threading.Event()

    @contextmanager
    def open(self) -> Iterator[None]:
        """From when all are open; who holds one lets it go when the service is stopped, or drains."""
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            self._open.acquire(timeout=30)
        try:
            yield
        finally:
            self._done.set()

    def join(self) -> None:
        """Wait until the last is over."""
        for thread in self._threads:
            thread.join(30)

    def _read(self) -> None:
        try:
            with Peer(self._address) as peer:
                while not self._done.is_set():
                    peer.send(request("/stream"))
                    peer.until(b"row\n")
                    self._open.release()
                    peer.until(b"bye\n\r\n0\r\n\r\n")
                    self.ended += 1
        except (Ended, OSError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("eager", [True, False], ids=["a-pool-that-fills-itself", "a-pool-that-is-filled-by-need"])
def test_no_connection_is_refused(tmp_path: Path, server: PostgresServer, *, eager: bool) -> None:
    """Without a surge as many are asked for as each day: each reload succeeds, and every answer is there."""
    before = len(server.refused)
    with service(tmp_path, server, "--strategy", "rolling", *NO_SURGE, eager=eager) as rolling:
        streams = Streams(rolling.address(), 4)
        with Traffic(rolling.address(), kept=16, fresh=4) as traffic, streams.open():
            for number in range(RELOADS):
                rollout = rolling.client.reload(wait="drained")
                assert rollout.outcome == "succeeded", (number, rollout)
                traffic.goes_on()
                assert not streams.failures
        rolling.client.reload(wait="drained")  # which ends the streams
        streams.join()
    assert not streams.failures
    assert streams.ended >= RELOADS * 2, "streams were there to be ended"
    assert server.refused[before:] == []
    print(f"{RELOADS} reloads, {len(traffic.pids)} answers and {streams.ended} streams, 0 lost, 0 refused")


def test_without_it_they_are(tmp_path: Path, server: PostgresServer) -> None:
    """Twice the pools are more than there are: such a release is rejected, and Postgres says why."""
    before = len(server.refused)
    with ExitStack() as stack:
        both = stack.enter_context(service(tmp_path, server, eager=True))
        both.tracebacks_expected = True
        done = both.cli("reload")
        assert done.returncode == 1
        assert "rejected (lifespan)" in done.stdout
        eventually(lambda: len(server.refused) > before, "Postgres has written of it")
        rolled = both.cli("reload", "--strategy", "rolling", *NO_SURGE)
        assert (rolled.returncode, rolled.stderr) == (0, "")
        assert "2/2 on gen 3" in rolled.stdout
