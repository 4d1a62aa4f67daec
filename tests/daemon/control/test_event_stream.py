"""The answer to GET /v1/events, without a socket: who leaves, leaves nothing; and the audit, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from stillup.core.access import Principal, Role
from stillup.core.caller_limits import Limits
from stillup.daemon.control.api import Call
from stillup.daemon.control.audit import Audit, Audited
from stillup.daemon.control.event_stream import answer
from stillup.daemon.control.request_limits import LastingRequests
from stillup.daemon.state.history import History
from stillup.errors import NotPermitted, Refused
from stillup.host.runtime_directory import RuntimeDirectory, claim
from stillup.wire.api_operation import ApiSocket
from stillup.wire.event_feed import make
from stillup.wire.operations import OPERATIONS
from tests.asgi.event_loops import until

pytestmark = pytest.mark.usefixtures("no_leak")

WHO = Principal(uid=1000, gid=100, pid=77, login_uid=1001, exe="/usr/bin/curl")
(OPERATION,) = (one for one in OPERATIONS if one.name == "events")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RuntimeDirectory]:
    """A runtime directory of ours."""
    held = claim(str(tmp_path / "rt"))
    yield held
    held.remove("events.ndjson")
    held.close()


class News:
    """What was announced."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, Any]] = []

    def announce(self, kind: str, data: Mapping[str, Any]) -> None:
        assert kind == "request.audited"
        make(kind, data, seq=1, at=datetime.now(UTC), monotonic=1.0)  # it has that shape
        self.told.append(data)

    def request(self, method: str = "POST") -> Audited:
        return Audit(self.announce).request(method, "/v1/reload", WHO, Role.OPERATOR)


@pytest.mark.parametrize("spec_version", ["2.3", "2.5"])
async def test_a_reader_that_leaves_leaves_nothing(directory: RuntimeDirectory, spec_version: str) -> None:
    """When followers hang up no task is left, and nobody waits for the next event any more."""
    history = History(directory)
    writing = asyncio.create_task(history.run())
    history.append("rollout.waiting", {"rollout": 1})
    await until(lambda: history.newest == 1)
    before = asyncio.all_tasks()
    gone = asyncio.Event()
    bodies: list[bytes] = []

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        bodies.append(message.get("body", b""))

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/v1/events", "headers": [], "query_string": b""}
    scope |= {"asgi": {"spec_version": spec_version}}
    call = Call(OPERATION, ApiSocket.CONTROL, WHO, Role.VIEWER, {"follow": True}, Request(scope), News().request("GET"))
    followers = [
        asyncio.create_task(answer(call, history, LastingRequests(Limits()))(scope, receive, send)) for _ in range(10)
    ]
    await until(lambda: sum(b"rollout.waiting" in body for body in bodies) == 10)
    await until(lambda: len(history._more._waiters) == 10)
    gone.set()
    await asyncio.gather(*followers)
    assert asyncio.all_tasks() == before
    assert not history._more._waiters
    writing.cancel()
    history.close()


def test_what_is_accepted_is_told_once() -> None:
    """At once where the handler says so, else when the request is answered; whatever comes of the waiting after it."""
    news = News()
    with news.request() as audited:
        audited.accepted(rollout=3)
        assert len(news.told) == 1, "before it is answered"
    with news.request():
        pass

    def waits_in_vain() -> None:
        with news.request() as audited:
            audited.accepted(scaling=2)
            raise Refused("it was aborted", code="scaling-aborted")

    with pytest.raises(Refused):
        waits_in_vain()
    told = [(one["outcome"], one["status"], one["rollout"], one["scaling"]) for one in news.told]
    assert told == [("accepted", 202, 3, None), ("accepted", 202, None, None), ("accepted", 202, None, 2)]


@pytest.mark.parametrize(
    ("error", "outcome", "status"),
    [
        (NotPermitted("no"), "denied", 403),
        (Refused("no", code="stopping"), "stopping", 503),
        (Refused("no", code="rollout-in-progress"), "rollout-in-progress", 409),
        (ZeroDivisionError(), "bug", 500),
    ],
)
def test_what_is_turned_down_is_told(error: Exception, outcome: str, status: int) -> None:
    """With the reason and the answer's status, and by the kernel's word who it was; a bug of ours, too."""
    news = News()
    with pytest.raises(type(error)), news.request():
        raise error
    (told,) = news.told
    assert (told["outcome"], told["status"], told["method"], told["path"]) == (outcome, status, "POST", "/v1/reload")
    assert told["role"] == "operator"
    assert told["principal"] == {"uid": 1000, "gid": 100, "pid": 77, "login_uid": 1001, "exe": "/usr/bin/curl"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_looks_are_not_told_of(method: str) -> None:
    """Neither one that is answered nor one that is denied."""
    news = News()
    with news.request(method):
        pass
    with pytest.raises(NotPermitted), news.request(method):
        raise NotPermitted("no")
    assert news.told == []
