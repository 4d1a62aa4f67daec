"""What ``stillup top`` costs whoever looks at a busy service for long: processor time, and memory that is flat."""

from __future__ import annotations

import gc
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from stillup.client import Client
from stillup.client.live_service import LiveService, Moment
from stillup.client.top.top_frame import TopView, frame
from stillup.client.top.top_lines import painted
from stillup.client.top.top_rates import RateMeter
from stillup.wire.event_encoding import parse
from tests.client.busy_supervisor import EVENTS, WORKERS, busy_supervisor, event, status
from tests.system.harness import STILLUP, eventually

SECONDS = 10.0
MOST = 0.05
"""Of a core."""


class _Terminal:
    """A terminal of 24 lines of 80 columns, and what was drawn on it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.drawn = b""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError):  # nobody draws any more
            while said := os.read(self.fd, 65536):
                self.drawn += said

    def close(self) -> None:
        self._thread.join(20)
        os.close(self.fd)


@contextmanager
def _shown(directory: Path) -> Iterator[tuple[psutil.Process, _Terminal]]:
    """The command, on a terminal of its own; it ends by ``q``."""
    ours, theirs = pty.openpty()
    words = [STILLUP, "top", "--runtime-dir", str(directory)]
    environment = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    ) as popen:
        os.close(theirs)
        terminal = _Terminal(ours)
        try:
            yield psutil.Process(popen.pid), terminal
            os.write(ours, b"q")
            assert popen.wait(20) == 0
        finally:
            popen.kill()
            popen.wait()
            terminal.close()


def test_a_busy_service_is_cheap_to_look_at(tmp_path: Path) -> None:
    """Under 5 % of a core, with 40 workers and 1,000 events a second."""
    with busy_supervisor(tmp_path), _shown(tmp_path) as (process, terminal):
        eventually(lambda: b"more workers" in terminal.drawn, "a frame is drawn")
        eventually(lambda: b"dances" in terminal.drawn, "it has events")
        before, began, drawn = process.cpu_times(), time.monotonic(), len(terminal.drawn)
        eventually(lambda: time.monotonic() - began > SECONDS, "so long it is measured")
        after, lasted = process.cpu_times(), time.monotonic() - began
        share = (after.user + after.system - before.user - before.system) / lasted
        assert share < MOST, f"{share:.1%} of a core"
        assert len(terminal.drawn) > drawn, "it was drawn meanwhile"
        assert process.memory_info().rss < 64 << 20
    assert terminal.drawn.endswith(b"\x1b[?1049l"), "the terminal is as it was"


def test_a_flood_is_kept_up_with(tmp_path: Path) -> None:
    """To be woken less often is not to read less: in some seconds as many events come as there are, and come soon."""
    with busy_supervisor(tmp_path, workers=1):
        live = LiveService(Client(str(tmp_path)), lambda: None)
        live.start()
        try:
            eventually(lambda: live._flooded and live.moment().events, "it is a flood")
            began, first = time.monotonic(), live.moment().events[-1].seq
            eventually(lambda: time.monotonic() - began > 3, "so long it is looked at")
            newest, now = live.moment().events[-1], time.monotonic()
        finally:
            live.end()
    assert newest.seq - first > 0.8 * EVENTS * (now - began)
    assert now - newest.monotonic < 1


def test_memory_is_flat_over_an_hour(tmp_path: Path) -> None:
    """3,600 statuses of 40 workers and 360,000 events leave what the first few hundred of them did, within 1 MB."""
    live = LiveService(Client(str(tmp_path)), lambda: None)
    meter = RateMeter()
    kept: list[tuple[int, int]] = []
    for second in range(3600):
        for number in range(100):
            live._take(parse(event(second * 100 + number)))
        at, seen = float(second), status(WORKERS, second)
        moment = Moment(seen, at, "", live.moment().events)
        lines = frame(moment, meter.rates(seen, at), TopView(80, 24), at)
        assert all(painted(line, colours=True) for line in lines if line)
        if second in (300, 3599):
            gc.collect()
            kept.append((psutil.Process().memory_info().rss, sys.getallocatedblocks()))
    assert len(moment.events) == 200
    (rss, blocks), (rss_later, blocks_later) = kept
    assert rss_later - rss < 1 << 20
    assert blocks_later - blocks < 1000, "pieces of memory, most of which have less than 100 bytes"
