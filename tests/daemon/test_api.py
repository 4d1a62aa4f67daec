"""The control API without a socket: what is asked for where nothing is, and what is ours to blame."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from supervisor.core.access import Principal, Role, Rules
from supervisor.core.events import ReloadAsked
from supervisor.core.model import RolloutState
from supervisor.daemon.api import Api, Call, Handler
from supervisor.daemon.engine import Engine
from supervisor.daemon.handlers import Handlers
from supervisor.daemon.identities import Identity
from supervisor.wire.control import Problem
from supervisor.wire.operations import API_HEADER, OPERATIONS, Door
from tests.core.telling import NEW, serving
from tests.daemon.engines import EFFECTS, KEEPER

ROOT = Principal(uid=0, gid=0, pid=77)
DONE = {"type": "http.request", "body": b"", "more_body": False}


async def _bug(_: Call) -> Any:
    raise ZeroDivisionError


class Asked:
    """One request to the API, and its answer."""

    def __init__(self, handler: Handler = _bug) -> None:
        self.told: list[dict[str, Any]] = []
        handlers = dict.fromkeys((operation.name for operation in OPERATIONS), handler)
        api = Api(handlers, Rules(), lambda _, data: self.told.append(dict(data)))
        self._app = api.at(Door.CONTROL)
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    async def ask(self, method: str, path: str, version: str = "") -> None:
        headers = [(API_HEADER.lower().encode(), version.encode())] if version else []
        scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b""}

        async def receive() -> dict[str, Any]:
            return DONE

        async def send(message: Any) -> None:
            self.status = message.get("status", self.status)
            self.headers |= dict(message.get("headers", ()))
            self.body += message.get("body", b"")

        await self._app({**scope, "state": {"identity": Identity(ROOT)}}, receive, send)

    @property
    def code(self) -> str:
        return msgspec.json.decode(self.body, type=Problem).type.rpartition(":")[2]


@pytest.mark.parametrize(
    ("version", "code"),
    [("", "not-found"), ("1.0", "not-found"), ("1.9", "client-too-new"), ("2.0", "client-too-new"), ("new", "usage")],
)
async def test_an_operation_of_a_later_version(version: str, code: str) -> None:
    """A client that is newer and asks for what is not there yet is told so; any other, that nothing is there."""
    for method, path in (("GET", "/v1/later"), ("POST", "/v1/status")):
        asked = Asked()
        await asked.ask(method, path, version)
        wanted = "method-not-allowed" if code == "not-found" and path == "/v1/status" else code
        assert asked.code == wanted


async def test_a_bug_is_a_problem() -> None:
    """What is ours to blame is a problem document like any error, audited, and raised on for the log."""
    asked = Asked()
    with pytest.raises(ZeroDivisionError):
        await asked.ask("POST", "/v1/reload")
    assert (asked.status, asked.code) == (500, "bug")
    assert asked.headers[b"content-type"] == b"application/problem+json"
    assert asked.headers[b"stillup-api"] == b"1.0"
    assert [(one["outcome"], one["status"]) for one in asked.told] == [("bug", 500)]


class _Audited:
    def accepted(self, status: int, *, rollout: int) -> None:
        self.said = (status, rollout)


class _Call:
    role = Role.ADMIN
    principal = ROOT

    def __init__(self) -> None:
        self.audited = _Audited()


@pytest.mark.parametrize("before", [0, 1])
async def test_what_is_called_off_is_what_was_asked_for_before(before: int) -> None:
    """An abort behind a reload that is not decided on yet calls that one off, whatever was under way when it came."""
    story = serving(1)
    for _ in range(before):
        story.reload()
    engine = Engine(story.fleet, KEEPER)
    handlers = Handlers.__new__(Handlers)  # an abort needs nothing else of it
    handlers._engine = engine
    engine.submit(ReloadAsked(NEW, "another"))
    call = _Call()
    running = asyncio.create_task(engine.run(EFFECTS))
    answer = await handlers._abort(cast("Any", call))
    running.cancel()
    number = 2 + before
    assert call.audited.said == (200, number)
    assert answer.headers["Location"] == f"/v1/rollouts/{number}"
    rollout = engine.fleet.rollout(number)
    assert rollout is not None
    assert (rollout.state, rollout.reason) == (RolloutState.ABORTED, "called-off")
