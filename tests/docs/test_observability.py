"""The recipes of docs/observability.md: what a worker has to tell last arrives, over a reload."""

from __future__ import annotations

import gzip
import http.server
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.system.gated_service import gone, reloaded
from tests.system.harness import Service, eventually, sample

LATER = "600000"
"""Milliseconds after which spans are sent anyway: long after the worker that made them has ended."""
OPEN_TELEMETRY = """

@app.get("/last-words")
async def last_words():
    return {}
"""
SENTRY = """

@app.get("/last-words")
async def last_words():
    sentry_sdk.capture_message("the last words")
    return {}
"""
PRELOADED = sample([(), ("--preload",)])


class Collector:
    """Takes what is sent to it, and keeps it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                encoding = self.headers.get("content-encoding")
                body = gzip.decompress(body) if encoding == "gzip" else body
                collector.bodies.append(zlib.decompress(body) if encoding == "deflate" else body)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)

    def has(self, *words: bytes) -> bool:
        """Whether one body has all of them."""
        return any(all(word in body for word in words) for body in self.bodies)


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    made.thread.start()
    yield made
    made.server.shutdown()
    made.thread.join()
    made.server.server_close()


def _recipe(heading: str) -> str:
    (block,) = (one for one in blocks(ROOT / "docs/observability.md") if one.section == heading)
    return block.text


@contextmanager
def _retired(service: Service) -> Iterator[None]:
    """The service is up; its first generation's worker was asked, and has ended."""
    with service:
        service.get("/last-words")
        reloaded(service)
        gone(service)
        yield


@pytest.mark.parametrize("options", PRELOADED)
def test_the_last_spans_arrive(options: tuple[str, ...], tmp_path: Path, collector: Collector) -> None:
    """Of OpenTelemetry, which sends them when the worker ends, and not before."""
    pytest.importorskip("opentelemetry.instrumentation.fastapi")
    endpoint = f"http://127.0.0.1:{collector.server.server_port}"
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": LATER}
    service = Service(tmp_path, "main:app", *options, environment=environment)
    service.write(_recipe("OpenTelemetry") + OPEN_TELEMETRY)
    with _retired(service):
        eventually(lambda: collector.has(b"GET /last-words", b"shop", b"1.1"), "the first worker's span is there")


@pytest.mark.parametrize("options", PRELOADED)
def test_the_last_message_arrives(options: tuple[str, ...], tmp_path: Path, collector: Collector) -> None:
    """Of Sentry, which sends it from a thread, and is flushed before the worker ends."""
    pytest.importorskip("sentry_sdk")
    dsn = f"http://key@127.0.0.1:{collector.server.server_port}/1"
    service = Service(tmp_path, "main:app", *options, environment={"SENTRY_DSN": dsn})
    service.write(_recipe("Sentry") + SENTRY)
    with _retired(service):
        eventually(lambda: collector.has(b"the last words", b'"generation":"1"'), "the first worker's message is there")
