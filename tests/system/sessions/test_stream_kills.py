"""Workers that are killed around the hand-off of an answer that streams: only what they held is lost."""

from __future__ import annotations

import http.client
import json
import os
import signal
from contextlib import ExitStack, closing

import pytest

from tests.system.client_group import frozen, until_waiting, worker_pids
from tests.system.gated_service import gone, open_gate, reached, reload
from tests.system.harness import connect, eventually
from tests.system.sessions.conftest import SessionService, Start

pytestmark = pytest.mark.xdist_group("sessions")

APP = "tests.system.sessions.stream_app:app"
TOKENS = 40
ENDLESS = 1_000_000
PARSERS = ["httptools", "h11"]


class Reader:
    """A client that has asked for tokens; with ``gate`` its answer begins when that is open."""

    def __init__(self, service: SessionService, stack: ExitStack, tokens: int, gate: str = "") -> None:
        self._connection = stack.enter_context(closing(connect(service.address())))
        asked = {"tokens": tokens, "client": 0, **({"gate": gate} if gate else {})}
        self._connection.request("POST", "/tokens", json.dumps(asked))
        if gate:
            reached(service, gate)

    def begin(self) -> list[int]:
        """Read the head, and the first token; the generation that it comes from."""
        self._answer = self._connection.getresponse()
        return list(map(int, self._answer.readline().split()))

    def until(self, generation: int) -> None:
        """Read until a token comes from that generation."""
        while not self._answer.readline().endswith(f" {generation}\n".encode()):
            pass

    def rest(self) -> list[tuple[int, int]] | None:
        """All tokens that come, each with its generation; None if the connection ended before the answer did."""
        try:
            lines = self._answer.read().decode().splitlines()
        except (http.client.IncompleteRead, ConnectionResetError):
            return None
        return [(int(number), int(generation)) for number, generation in map(str.split, lines)]

    def has_none(self) -> bool:
        """Whether the connection ended before an answer came."""
        try:
            self._connection.getresponse()
        except ConnectionError:  # RemoteDisconnected is one
            return True
        return False


def _gated(service: SessionService, stack: ExitStack, gate: str, number: int) -> list[Reader]:
    return [Reader(service, stack, TOKENS, f"{gate}{place}") for place in range(number)]


def _whole(reader: Reader) -> bool:
    """Whether each token comes once, in order, the first ones from the first generation at most."""
    tokens = [reader.begin(), *map(list, reader.rest() or [])]
    by = [generation for _, generation in tokens]
    return [number for number, _ in tokens] == list(range(TOKENS)) and by == sorted(by) and by[-1] == 2


@pytest.mark.parametrize("parser", PARSERS)
def test_the_old_worker_is_killed(parser: str, start: Start, stack: ExitStack) -> None:
    """It takes those with it whose answer had not begun; those in the queue are not its any more."""
    service = start("--http", parser, app=APP)
    handed, held = _gated(service, stack, "a", 10), _gated(service, stack, "b", 5)
    victim = worker_pids(service)["1.1"]
    reload(service)
    service.drain_is_known()
    with frozen([pid for name, pid in worker_pids(service).items() if name.startswith("2.")]):
        for place in range(len(handed)):
            open_gate(service, f"a{place}")
        until_waiting(service, len(handed))
        os.kill(victim, signal.SIGKILL)
        gone(service)
    assert all(reader.has_none() for reader in held)
    assert all(_whole(reader) for reader in handed)


@pytest.mark.parametrize("parser", PARSERS)
def test_the_new_worker_is_killed(parser: str, start: Start, stack: ExitStack) -> None:
    """It takes those with it that it had adopted; those in the queue go on with who is started in its place."""
    service = start("--http", parser, app=APP)
    adopted = [Reader(service, stack, ENDLESS) for _ in range(5)]
    assert [reader.begin() for reader in adopted] == [[0, 1]] * len(adopted)
    waiting = _gated(service, stack, "b", 10)
    reload(service)
    for reader in adopted:
        reader.until(2)
    victim = worker_pids(service)["2.1"]
    with frozen([victim]):
        for place in range(len(waiting)):
            open_gate(service, f"b{place}")
        until_waiting(service, len(waiting))
        os.kill(victim, signal.SIGKILL)
    assert [reader.rest() for reader in adopted] == [None] * len(adopted)
    assert all(_whole(reader) for reader in waiting)
    eventually(lambda: len(worker_pids(service)) == 1, "its slot is filled")
