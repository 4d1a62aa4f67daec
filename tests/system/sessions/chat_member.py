"""A member of the example's chat, without a browser."""

from __future__ import annotations

import json
import threading

from tests.system.harness import Service
from tests.system.sessions.websocket_peer import Closed, WebSocketPeer


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
