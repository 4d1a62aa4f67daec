"""Answers that stream over reloads: every token once, by one connection, and charged once."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app_example.chat import STORY
from tests.system.gated_service import reload
from tests.system.harness import FULL, ROOT, Service, connect, eventually

pytestmark = pytest.mark.xdist_group("sessions")

CLIENTS = 30 if FULL else 6
RELOADS = 3
PARSERS = ["httptools", "h11"]


@dataclass
class Stream:
    """A client that asks for tokens, again and again on one connection, and looks at each."""

    address: str
    client: int
    ended: threading.Event
    """Set when the answers under way are to be the last."""
    tokens: int = 0
    answers: int = 0
    generations: set[int] = field(default_factory=set)
    crossed: int = 0
    """Answers that more than one generation gave."""
    wrong: str = ""

    def run(self) -> None:
        try:
            with closing(connect(self.address)) as connection:
                while not self.ended.is_set():
                    self._ask(connection)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test has to tell of it
            self.wrong = f"{type(error).__name__}: {error}"

    def _ask(self, connection: object) -> None:
        many = 60 + 7 * self.client
        body = json.dumps({"tokens": many, "client": self.client})
        connection.request("POST", "/tokens", body)  # type: ignore[attr-defined]
        answer = connection.getresponse()  # type: ignore[attr-defined]
        seen = [tuple(map(int, line.split())) for line in answer.read().decode().splitlines()]
        assert [number for number, _ in seen] == list(range(many)), seen
        assert answer.getheader("connection") is None, "it was told to close"
        by = [generation for _, generation in seen]
        assert by == sorted(by), seen
        self.tokens += many
        self.answers += 1
        self.generations.update(by)
        self.crossed += len(set(by)) > 1


@pytest.mark.parametrize("http", PARSERS)
def test_every_token_once(http: str, tmp_path: Path, stack: ExitStack) -> None:
    """Over some generations, with a body to be sent again; who charges asks whether the request is made again."""
    app = "tests.system.sessions.stream_app:app"
    known = ("--app-dir", str(ROOT), "--no-access-log", "--health-path", "/healthz", "--http", http)
    service = stack.enter_context(Service(tmp_path, app, *known, workers=2))
    ended = threading.Event()
    streams = [Stream(service.address(), client, ended) for client in range(CLIENTS)]
    threads = [threading.Thread(target=stream.run) for stream in streams]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, RELOADS + 2):
            eventually(
                lambda: all(number in stream.generations or stream.wrong for stream in streams),  # noqa: B023
                f"all were at generation {number}",
            )
            if number <= RELOADS:
                reload(service)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not [stream.wrong for stream in streams if stream.wrong]
    answers, crossed = sum(stream.answers for stream in streams), sum(stream.crossed for stream in streams)
    tokens = sum(stream.tokens for stream in streams)
    print(f"{http}: {tokens} tokens in {answers} answers, {crossed} of them by two generations or more")
    assert crossed >= CLIENTS, "they did cross over"
    charged = (service.folder / "charged").read_text().split()
    assert sorted(map(int, charged)) == sorted(stream.client for stream in streams for _ in range(stream.answers))
    crossing = service.status().crossing
    assert (crossing.lost, crossing.closed, crossing.sessions_refused) == (0, 0, 0)


def test_a_story_is_told_to_its_end(tmp_path: Path, stack: ExitStack) -> None:
    """The example's, over as many reloads as fit into it."""
    options = ("--app-dir", str(ROOT), "--no-access-log", "--http", "auto")
    service = stack.enter_context(Service(tmp_path, "app_example.chat:app", *options))
    connection = stack.enter_context(closing(connect(service.address())))
    connection.request("POST", "/story")
    answer = connection.getresponse()
    told = answer.read1().decode()
    for _ in range(2):
        reload(service)
        told += answer.read1().decode()
    told += answer.read().decode()
    assert told.strip() == STORY
    assert service.status().crossing.sessions_given == 2
