"""The example's chat: its members stay, and miss nothing that the others say."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.gated_service import reloaded
from tests.system.harness import FULL, ROOT, Service, eventually
from tests.system.sessions.websocket_peer import Closed, WebSocketPeer

pytestmark = pytest.mark.xdist_group("sessions")

RELOADS = 20 if FULL else 3
MEMBERS = ("ann", "bob", "cleo")


class Member:
    """One who chats, and notes all that is said."""

    def __init__(self, service: Service, name: str) -> None:
        self.peer = WebSocketPeer(service.address(), f"/chat?name={name}")
        self.workers: list[str] = []
        self.lines: list[str] = []
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def _listen(self) -> None:
        try:
            while True:
                said = json.loads(self.peer.receive_text())
                self.workers += [said["worker"]] if "worker" in said else []
                self.lines += [said["line"]] if "line" in said else []
        except Closed:
            return

    def say(self, line: str) -> None:
        self.peer.send(self.peer.text(line))

    def leave(self) -> None:
        self.peer.close()
        self._listening.join()
        self.peer.sock.close()


def test_nobody_misses_a_line(tmp_path: Path, stack: ExitStack) -> None:
    """Members who talk all the time see each line once, over reloads, and nobody is said to come or to leave."""
    options = ("--app-dir", str(ROOT), "--no-access-log", "--ws", "auto")
    service = stack.enter_context(Service(tmp_path, "app_example.chat:app", *options))
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
        assert member.workers == [f"{generation}.1" for generation in range(1, RELOADS + 2)]
    assert not [line for line in members[0].lines if "has left" in line]
