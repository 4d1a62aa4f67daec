"""The service whose WebSockets are handed over."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.system.gated_service import reloaded
from tests.system.harness import ROOT, Service, eventually
from tests.system.mutations import Mutation, mutated
from tests.system.sessions.websocket_peer import WebSocketPeer


class SessionService(Service):
    """A service of the app of sessions; what the next release is, its environment says."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        app: str = "tests.system.sessions.session_app:app",
        workers: int = 1,
        changes: Sequence[Mutation] = (),
    ) -> None:
        self.env_file = folder / "env"
        self.next_release()
        known = ("--app-dir", str(ROOT), "--no-access-log", "--health-path", "/healthz", "--ws", "websockets-sansio")
        patient = ("--ws-ping-timeout", "120", "--env-file", str(self.env_file))
        environment = mutated(folder, *changes) if changes else None
        super().__init__(folder, app, *known, *patient, *options, workers=workers, environment=environment)

    def next_release(self, **variables: str | int) -> None:
        """Give these variables to the next generation, and no others."""
        self.env_file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))

    def noted(self, file: str) -> list[list[str]]:
        """The lines that the app wrote into a file, word by word."""
        path = self.folder / file
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def refused(self, reason: str) -> int:
        """The sessions that did not go on for that reason, by the events so far."""
        events = (json.loads(line) for line in (self.runtime / "events.ndjson").read_text().splitlines())
        return sum(event["sessions"].get(reason, 0) for event in events if event["kind"] == "sessions.refused")

    def told_at(self, kind: str) -> float:
        """When the last event of a kind was told, in seconds on the monotonic clock."""

        def look() -> list[float]:
            lines = (self.runtime / "events.ndjson").read_text().splitlines()
            return [event["monotonic"] for event in map(json.loads, lines) if event["kind"] == kind]

        return eventually(look, f"{kind} is told")[-1]

    def drain_is_known(self) -> None:
        """Wait until each worker that is to drain says that it does: until then its app's sessions stay."""
        eventually(
            lambda: all(worker.oldest for worker in self.workers("draining")), "the old ones know that they drain"
        )

    def counted(self, kind: str, number: int, state: str = "serving") -> None:
        """Wait until the workers have so many connections of a class."""
        eventually(
            lambda: sum(worker.classes.get(kind, 0) for worker in self.workers(state)) == number,
            f"{number} of class {kind}",
        )


def counts_on(service: Service, peer: WebSocketPeer, answer: str) -> None:
    """Have three reloads, with a text before each: the answers, ``answer`` with a number, count on from 1."""
    for number in range(1, 4):
        peer.send(peer.text("a"))
        assert peer.receive_text() == answer.format(number)
        reloaded(service)
        eventually(partial(_have_adopted, service, number), "its new worker says that it has it")


def _have_adopted(service: Service, number: int) -> bool:
    return service.status().crossing.sessions_adopted == number


Start = Callable[..., SessionService]


@pytest.fixture
def start(tmp_path: Path, stack: ExitStack) -> Start:
    """Starts a service with options of its own."""
    return lambda *options, **others: stack.enter_context(SessionService(tmp_path, *options, **others))
