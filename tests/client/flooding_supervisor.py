"""A supervisor of forty busy workers to which a thousand things happen in a second."""

from __future__ import annotations

import http.server
import itertools
import os
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from stillup.core.series import MOST, PERIOD, SPAN
from stillup.wire.api_operation import JSON, NDJSON
from stillup.wire.api_shapes import GenerationView, Status, Whoami, WorkerView
from stillup.wire.event_encoding import AnyEvent
from stillup.wire.operations import OPERATIONS
from stillup.wire.runtime_paths import CONTROL
from stillup.wire.series_view import CutOverView, PointView, SeriesView
from tests.wire.example_fleets import BOOTING, look, serving

WORKERS = 40
EVENTS = 1000
"""In a second."""
BATCH = 0.05
"""Seconds of events that are told together."""
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def busy_status(seconds: float) -> Status:
    """The service after so many seconds: each worker has done something."""
    workers = [
        WorkerView(
            id=f"2.{slot}",
            pid=1000 + slot,
            state="serving",
            connections=20,
            age=seconds,
            classes={"in-progress": 1 + int(seconds + slot) % 7, "idle": 9, "stream": 3, "websocket": slot % 5},
            requests=int(100 * seconds * slot),
            cpu=seconds * (0.1 + slot / 100),
            memory=80_000_000 + int(seconds) * 4096,
            lag=0.001 * (slot % 9),
            leader=slot == 1,
        )
        for slot in range(1, WORKERS + 1)
    ]
    generation = GenerationView(2, "serving", "srv/new", workers)
    done = msgspec.structs.replace(BOOTING, state="done", outcome="succeeded", serves=True, workers_ready=WORKERS)
    return msgspec.structs.replace(
        look(serving(), 20.0), generations=[generation], rollout=done, uptime=seconds, cpu=0.01 * seconds
    )


def busy_event(number: int, seconds: float = 0.0) -> AnyEvent:
    """One of those that happen."""
    at = BEGAN + timedelta(seconds=seconds)
    slot = number % WORKERS
    return AnyEvent("worker.serving", number, at, seconds, f"2.{slot} (pid {1000 + slot}) serves, the {number}. time")


def busy_series(seconds: float) -> SeriesView:
    """The 15 minutes before."""
    first = int(seconds // PERIOD)
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
            generation=2,
        )
        for number in range(first, first + MOST)
    ]
    cut = CutOverView(points[90].at, 2, rolls_back=False)
    return SeriesView(PERIOD, SPAN, points, [cut, CutOverView(points[140].at, 3, rolls_back=True)])


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    over = False
    began = time.monotonic()
    events = itertools.count(1)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        seconds = time.monotonic() - self.server.began
        answers: dict[str, Any] = {
            "/v1/status": lambda: busy_status(seconds),
            "/v1/series": lambda: busy_series(seconds),
            "/v1/whoami": _whoami,
        }
        if path == "/v1/events":
            self._follow()
        elif path in answers:
            self._answer(msgspec.json.encode(answers[path]()))
        else:
            self.send_error(404)
        self.close_connection = True

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", JSON)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _follow(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", NDJSON)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        due = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):
            while not self.server.over:
                seconds = time.monotonic() - self.server.began
                some = itertools.islice(self.server.events, int(EVENTS * BATCH))
                said = b"".join(msgspec.json.encode(busy_event(one, seconds)) + b"\n" for one in some)
                self.wfile.write(b"%x\r\n%b\r\n" % (len(said), said))
                due += BATCH
                time.sleep(max(0.0, due - time.monotonic()))

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def address_string(self) -> str:
        return ""


def _whoami() -> Whoami:
    may = [operation.name for operation in OPERATIONS]
    return Whoami(os.geteuid(), os.getegid(), [], os.getpid(), None, "", "admin", may)


@contextmanager
def flooding_supervisor(directory: Path) -> Iterator[None]:
    """Serve there: status, whoami, series, and events to whoever follows."""
    with _Server(str(directory / CONTROL), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            server.over = True
            server.shutdown()
            thread.join(10)
