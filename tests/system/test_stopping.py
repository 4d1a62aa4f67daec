"""A stop as people see it: announced before it begins, and never silent while it waits."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path

from tests.system.clients import Peer, request
from tests.system.gated_service import GATED
from tests.system.harness import DEADLINE, STILLUP, Service, connect, eventually, lines

STREAMS_AND_NEVER_ENDS = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.sleep(3600)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"more", "more_body": True})
        await asyncio.sleep(0.05)
"""
STOP = 8
"""Seconds of --stop-timeout, 6 of them for the stream. The app's shutdown once had 5 more."""


def test_the_shutdown_is_part_of_a_stop(tmp_path: Path) -> None:
    """A stream is cut before the time of a stop is over: the app's shutdown has the rest, and no more."""
    service = Service(tmp_path, "main:app", "--stop-timeout", str(STOP))
    service.write(STREAMS_AND_NEVER_ENDS)
    with service, Peer(service.address()) as streams:
        streams.send(request("/"))
        streams.until(b"more")
        service.process.terminate()
        assert service.process.wait(DEADLINE) == 0
    cut = re.search(r"drain ended 1 stream after (\S+) s", service.log())
    late = re.search(r"the app's shutdown took longer than (\S+) s", service.log())
    assert cut is not None
    assert late is not None
    assert float(cut[1]) < STOP
    assert float(late[1]) <= 2


def _status(address: str, path: str) -> tuple[int, str | None]:
    """The status of an answer, and whether it says close."""
    with closing(connect(address)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("connection")


def test_a_stop_says_who_is_waited_for(tmp_path: Path) -> None:
    """The log and the command do, every few seconds, and how to hurry; `stop --now` does not wait."""
    service = Service(tmp_path, *GATED)
    service.tracebacks_expected = True  # of the request that is cut
    with service, Peer(service.address()) as waits:
        waits.send(request("/wait?gate=g"))
        eventually((service.folder / "g.reached").exists, "the request is in progress")
        argv = [STILLUP, "stop", "--runtime-dir", str(service.runtime)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as stop:
            assert stop.stdout is not None
            assert "waiting for 1 request (1.1); 'stillup stop --now' hurries" in stop.stdout.readline()
            eventually(
                lambda: next(
                    lines(service.log(), "waiting for 1 request (1.1); at most", "SIGTERM again to hurry"), ""
                ),
                "the log says so, too",
            )
            begun = time.monotonic()
            assert service.cli("stop", "--now").returncode == 0
            assert time.monotonic() - begun < 20  # 30 are allowed
            assert "stopped" in stop.stdout.read()
        assert (stop.returncode, service.process.wait(DEADLINE)) == (0, 0)


def test_a_stop_is_announced(tmp_path: Path) -> None:
    """With --stop-delay it is a cordon first: unready, and everything is served; then it ends. Ctrl-C skips that."""
    service = Service(tmp_path, "main:app", "--stop-delay", "8")
    service.write()
    with service:
        address, control = service.address(), f"unix:{service.runtime}/control.sock"
        begun = time.monotonic()
        service.signal(signal.SIGTERM)
        eventually(lambda: _status(control, "/readyz")[0] == 503, "it is unready")
        assert service.status().state == "stop-delay"
        eventually(lambda: _status(address, "/") == (200, "close"), "it serves, and says close")
        assert service.process.wait(DEADLINE) == 0
        assert time.monotonic() - begun > 8
        service.start()
        assert json.loads(service.cli("status", "--json").stdout)["cordoned_for"] is None
        service.signal(signal.SIGINT)
        assert service.process.wait(DEADLINE) == 0
        assert "stopping in 8 s (SIGTERM)" in service.log()
        assert service.log().count("stopping in 8 s") == 1
