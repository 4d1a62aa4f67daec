"""What a page is told: the newest, at most four times a second, however slowly it reads."""

from __future__ import annotations

import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from stillup.client.dashboard import dashboard_feed
from stillup.client.dashboard.dashboard_feed import TICK
from stillup.client.live_service import EVENTS
from stillup.core.drain import ConnectionClass
from tests.client.busy_supervisor import WORKERS, busy_supervisor
from tests.client.hostile_supervisor import hostile_supervisor
from tests.system.dashboard.dashboard_page import Dashboard, dashboard
from tests.system.harness import DEADLINE, eventually

pytestmark = pytest.mark.xdist_group("dashboard")

PAGE = Path(dashboard_feed.__file__).parent / "page"
SLOW = 4.0
"""Seconds in which somebody reads nothing."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def token(page: Dashboard) -> str:
    body = f"Host: 127.0.0.1:{page.port}\r\nContent-Length: {len(page.key)}\r\nConnection: close\r\n\r\n{page.key}"
    with socket.create_connection(("127.0.0.1", page.port), timeout=DEADLINE) as sock:
        sock.sendall(f"POST /session HTTP/1.1\r\n{body}".encode())
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["token"])


@contextmanager
def stream(page: Dashboard, key: str, buffer: int = 0) -> Iterator[socket.socket]:
    """One that was asked for; ``buffer``: bytes of it that our kernel keeps."""
    with closing(socket.socket()) as sock:
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.settimeout(DEADLINE)
        sock.connect(("127.0.0.1", page.port))
        head = f"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nAuthorization: Bearer {key}\r\n\r\n"
        sock.sendall(head.encode())
        yield sock


def messages(sock: socket.socket) -> Iterator[dict[str, Any]]:
    """What it says, without the lengths of its chunks."""
    with sock.makefile("rb") as file:
        for line in file:
            if line.startswith(b"{"):
                yield json.loads(line)


def until(said: Iterator[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The next message of that kind."""
    return next(one for one in said if kind in one)


def test_what_a_page_is_told(tmp_path: Path) -> None:
    """First who we are; then the service, its events in batches, its figures; and not more often than that."""
    with busy_supervisor(tmp_path), dashboard(tmp_path) as page, stream(page, token(page)) as sock:
        said = messages(sock)
        hello = next(said)["hello"]
        assert (hello["whoami"]["role"], hello["remote"], hello["name"]) == ("admin", "", "shop")
        assert "reload" in hello["whoami"]["may"]
        assert hello["families"].keys() == {str(kind) for kind in ConnectionClass}
        (bars,) = re.findall(r"const FAMILIES = {(.*?)}", (PAGE / "generations.js").read_text())
        assert set(hello["families"].values()) <= set(re.findall(r"(\w+):", bars)), "the page has a bar for each"
        assert len(until(said, "status")["status"]["generations"][0]["workers"]) == WORKERS
        assert len(until(said, "series")["series"]["points"]) == 180
        began, seen, last = time.monotonic(), 0, 0
        for one in itertools.islice((one for one in said if "events" in one), 6):
            assert 0 < len(one["events"]) <= EVENTS
            numbers = [event["seq"] for event in one["events"]]
            assert not last or numbers[0] == last + 1 + one["skipped"]
            seen, last = seen + 1, numbers[-1]
        assert time.monotonic() - began >= (seen - 2) * TICK


def test_a_page_that_reads_nothing(tmp_path: Path) -> None:
    """What it misses is not kept for it: it is told how much that was, and what is newest."""
    with busy_supervisor(tmp_path), dashboard(tmp_path) as page:
        key = token(page)
        process = psutil.Process(page.process.pid)
        with stream(page, key) as other, stream(page, key, buffer=4096) as slow:
            said = messages(other)
            until(said, "events")
            before = process.memory_info().rss
            began = time.monotonic()
            eventually(
                lambda: until(said, "events") and time.monotonic() > began + SLOW, "it has read nothing for long"
            )
            assert process.memory_info().rss < before + (8 << 20)
            newest = until(said, "events")["events"][-1]["seq"]
            late = messages(slow)
            found = [until(late, "events")]
            while found[-1]["events"][-1]["seq"] < newest:
                found.append(until(late, "events"))
            assert max(one["skipped"] for one in found) > EVENTS
            ours, theirs = until(late, "status")["status"]["uptime"], until(said, "status")["status"]["uptime"]
            assert abs(ours - theirs) < SLOW


def test_a_supervisor_that_goes(tmp_path: Path, stack: ExitStack) -> None:
    """Is said; and the service again when there is another, with what we may do there."""
    with hostile_supervisor(tmp_path):
        page = stack.enter_context(dashboard(tmp_path))
        said = messages(stack.enter_context(stream(page, token(page))))
        until(said, "status")
    (tmp_path / "control.sock").unlink()
    none = f"no supervisor runs in {tmp_path}"
    assert next(one for one in said if none in one.get("trouble", ""))
    with busy_supervisor(tmp_path):
        assert next(one for one in said if one.get("trouble") == "")
        assert until(said, "status")["status"]["name"] == "shop"
        assert until(said, "hello")["hello"]["whoami"]["role"] == "admin"
