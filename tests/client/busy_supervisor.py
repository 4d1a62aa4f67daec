"""A supervisor of a test's own with many workers, to which much happens: its status, its figures, and its events."""

from __future__ import annotations

import http.server
import os
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from stillup.core.series import MOST, PERIOD, SPAN
from stillup.wire.api_operation import JSON, NDJSON
from stillup.wire.api_shapes import GenerationView, ListenerView, Status, Whoami, WorkerView
from stillup.wire.crossing_view import CrossingView
from stillup.wire.operations import OPERATIONS
from stillup.wire.runtime_paths import CONTROL
from stillup.wire.series_view import CutOverView, PointView, SeriesView

CROSSING = CrossingView(waiting=0, capacity=200, given=0, adopted=0, lost=0, closed=0, longest=0.0)
WORKERS, EVENTS = 40, 1000
"""As a rule: how many there are, and how many things happen in a second."""
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def worker(number: int, second: float = 0.0, generation: int = 1) -> WorkerView:
    """One that has served for so many seconds, and has something of what most have."""
    return WorkerView(
        id=f"{generation}.{number}",
        pid=4000 + 100 * generation + number,
        state="serving",
        connections=number + 4,
        age=60.0 + second,
        classes={"idle": number, "in-progress": 3, "stream": 1},
        requests=int(second * 100 * number),
        cpu=second * 0.25,
        memory=(30 + number) << 20,
        lag=0.001 * number,
    )


def status(workers: int = WORKERS, second: float = 0.0) -> Status:
    """One generation of so many workers, at that second."""
    serving = GenerationView(1, "serving", "shop@1", [worker(number, second) for number in range(1, workers + 1)])
    return Status(
        name="shop",
        version="1.0",
        pid=4000,
        uptime=60.0 + second,
        cpu=second * 0.01,
        memory=40 << 20,
        listeners=[ListenerView("127.0.0.1:8000", "127.0.0.1:8000")],
        state="serving",
        generations=[serving],
        crossing=CROSSING,
        rollout=None,
    )


def event(seq: int) -> bytes:
    """A line of JSON, without its end."""
    told = {"kind": "worker.dances", "seq": seq, "at": datetime.now(UTC), "monotonic": time.monotonic()}
    return msgspec.json.encode({**told, "text": f"worker 1.{seq % 40} (pid 4{seq:06}) dances with another one"})


def series(second: float = 0.0) -> SeriesView:
    """The 15 minutes before that second."""
    first = int(second // PERIOD)
    points = [
        PointView(
            at=BEGAN + timedelta(seconds=PERIOD * number),
            seconds=PERIOD,
            requests=4000 + 300 * (number % 11),
            errors=float(number % 3),
            p50=0.004,
            p99=0.05 + 0.01 * (number % 7),
            lag=0.002,
            memory=3_200_000_000 + 1_000_000 * (number % 13),
            connections=800,
            workers=WORKERS,
            generation=1,
        )
        for number in range(first, first + MOST)
    ]
    return SeriesView(PERIOD, SPAN, points, [CutOverView(points[90].at, 1, rolls_back=True)])


def _whoami() -> Whoami:
    may = [operation.name for operation in OPERATIONS]
    return Whoami(os.geteuid(), os.getegid(), [], os.getpid(), None, "", "admin", may)


class _BusyServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    workers: int
    per_second: int
    began: float
    over: threading.Event


class _BusyHandler(http.server.BaseHTTPRequestHandler):
    server: _BusyServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/v1/events":
            with suppress(OSError):
                self._stream()
            self.close_connection = True
            return
        second = time.monotonic() - self.server.began
        answer: Status | SeriesView | Whoami
        match path:
            case "/v1/status":
                answer = status(self.server.workers, second)
            case "/v1/series":
                answer = series(second)
            case _:
                answer = _whoami()
        body = msgspec.json.encode(answer)
        self._begin(JSON, ("Content-Length", str(len(body))))
        self.wfile.write(body)

    def _begin(self, kind: str, *headers: tuple[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        for header in headers:
            self.send_header(*header)
        self.end_headers()

    def _stream(self) -> None:
        """One chunk an event, as a supervisor has them, the chunks evenly spread."""
        server = self.server
        self._begin(NDJSON, ("Transfer-Encoding", "chunked"))
        began, sent = time.monotonic(), 0
        while not server.over.wait(1 / server.per_second):
            while sent < (time.monotonic() - began) * server.per_second:
                sent += 1
                said = event(sent) + b"\n"
                self.wfile.write(b"%x\r\n%b\r\n" % (len(said), said))

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def address_string(self) -> str:
        return ""


@contextmanager
def busy_supervisor(directory: Path, *, workers: int = WORKERS, per_second: int = EVENTS) -> Iterator[None]:
    """Serve there; each follower of the events is told so many a second."""
    with _BusyServer(str(directory / CONTROL), _BusyHandler) as server:
        server.workers, server.per_second = workers, per_second
        server.began, server.over = time.monotonic(), threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            server.over.set()
            server.shutdown()
            thread.join(10)
