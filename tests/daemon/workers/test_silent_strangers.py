"""Strangers who connect to handoff.sock as fast as they can, and say nothing."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import pytest

from stillup.core.commands import Spawn
from stillup.daemon.state import log_ratelimit
from stillup.host.channel import connect_within
from stillup.wire import handoff_messages
from stillup.wire.handoff_messages import Hello
from tests.asgi.event_loops import until
from tests.children import spawned
from tests.daemon.workers.test_admission import RELEASE, WELCOME, Supervisor
from tests.system.own_pauses import OwnPauses

CONNECTS = (
    "import resource, socket, sys\n"
    "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
    "print(flush=True)\n"
    "socks = []\n"
    "while True:\n"
    "    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
    "    sock.connect(sys.argv[1])\n"
    "    socks.append(sock)\n"
    "    if len(socks) > 256: socks.pop(0).close()\n"
)
"""A stranger that connects again and again, and says nothing."""


async def test_the_silent_keep_nobody_out(caplog: pytest.LogCaptureFixture) -> None:
    """While strangers connect as fast as they can, worker after worker is let in at once; the log says so twice."""
    supervisor = Supervisor(open=True, claims=False, admits=True, refuses=False)
    loop = asyncio.get_running_loop()
    all_began = loop.time()
    command = [sys.executable, "-c", CONNECTS, supervisor.path]
    with OwnPauses() as pauses, spawned(command, stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        await loop.run_in_executor(None, stranger.stdout.readline)
        await until(lambda: "too many connect that are no workers" in caplog.text)
        for serial in range(3, 13):
            process = loop.create_future()
            process.set_result(supervisor.process)
            supervisor.admission.expect(
                f"worker {serial}", Spawn(serial, 1, 1, RELEASE, 1, 1), process, lambda: WELCOME
            )
            began = loop.time()
            worker = await loop.run_in_executor(None, connected, supervisor.path)
            worker.send(handoff_messages.encode(Hello(handoff_messages.PROTOCOL, f"worker {serial}")))
            await until(lambda serial=serial: f"serial={serial}" in str(supervisor.events))  # type: ignore[misc]
            assert loop.time() - began - pauses.since(began) < 5.0
            worker.close()
        assert len(supervisor.admission._unidentified) <= 66
        stranger.kill()
    lines = [record for record in caplog.records if record.name == "stillup.handoff"]
    assert len(lines) <= 2 * (1 + (loop.time() - all_began) / log_ratelimit.PAUSE)
    await supervisor.close()


def connected(path: str) -> socket.socket:
    """As a worker connects."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connect_within(sock, path, 10.0)
    sock.setblocking(False)
    return sock
