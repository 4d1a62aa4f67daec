"""The example's chat: its members stay, and miss nothing that the others say.

Its room is in the process of the one worker, or in a real Redis for several.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.gated_service import reloaded
from tests.system.harness import FULL, ROOT, Service, eventually
from tests.system.sessions.chat_member import Member

pytestmark = pytest.mark.xdist_group("sessions")

RELOADS = 20 if FULL else 3
MEMBERS = ("ann", "bob", "cleo")


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A server of our own, on a Unix socket."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed")
    path = tmp_path / "redis.sock"
    options = ("--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path))
    with subprocess.Popen([server, *options], stdout=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: answers(path), "Redis answers")
            yield f"unix://{path}"
        finally:
            process.kill()


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return path.exists() and sock.connect_ex(str(path)) == 0


def test_nobody_misses_a_line(tmp_path: Path, stack: ExitStack) -> None:
    """Members who talk all the time see each line once, over reloads, and nobody is said to come or to leave."""
    members = chat_over_reloads(tmp_path, stack, workers=1)
    for member in members:
        assert member.workers == [f"{generation}.1" for generation in range(1, RELOADS + 2)]


def test_nobody_misses_a_line_of_other_workers(tmp_path: Path, redis_url: str, stack: ExitStack) -> None:
    """So it is with members at several workers, each of whom brings along how far it has read of the stream."""
    members = chat_over_reloads(tmp_path, stack, workers=2, REDIS_URL=redis_url)
    for member in members:
        assert {int(worker.partition(".")[0]) for worker in member.workers} == set(range(1, RELOADS + 2))


def chat_over_reloads(folder: Path, stack: ExitStack, *, workers: int, **environment: str) -> list[Member]:
    """Have members talk while the service is reloaded: what each of them saw is what was said, once."""
    options = ("--app-dir", str(ROOT), "--no-access-log", "--ws", "auto")
    app = "app_example.chat:app"
    service = stack.enter_context(Service(folder, app, *options, workers=workers, environment=environment))
    assert "<title>Chat</title>" in service.get("/")
    members = []
    for number, name in enumerate(MEMBERS, 1):
        members.append(Member(service, name))
        stack.callback(members[-1].leave)
        everybody = [f"{known} has come" for known in MEMBERS[:number]]
        eventually(lambda: all(m.lines[-1:] == everybody[-1:] for m in members), "they have come")  # noqa: B023
    said: list[str] = []
    done = threading.Event()

    def talk() -> None:
        while not done.is_set() or len(said) < 10:
            for name, member in zip(MEMBERS, members, strict=True):
                line = f"line {len(said)}"
                said.append(f"{name}: {line}")
                member.say(line)
            # No more than the room knows are on their way.
            seen = len(said)
            eventually(lambda: all(len(m.lines) == len(MEMBERS) + seen for m in members), "it is heard")  # noqa: B023

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        for _ in range(RELOADS):
            reloaded(service)
    finally:
        done.set()
        talking.join()
    for member in members:
        lines = [line for line in member.lines if not line.endswith("has come")]
        assert sorted(lines) == sorted(said)
    assert not [line for line in members[0].lines if "has left" in line]
    return members
