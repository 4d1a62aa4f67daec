"""The control API without a socket: what is asked for where nothing is, and what is ours to blame."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest
from starlette.responses import Response

from stillup.core.access import Principal, Role, Rules
from stillup.core.events import ReloadAsked, Reported
from stillup.core.states import RolloutState
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from stillup.daemon.control.api import Api, Call, Handler
from stillup.daemon.control.audit import Audit
from stillup.daemon.control.handlers import Handlers
from stillup.daemon.control.peer_identities import Identity
from stillup.wire.api_operation import ApiSocket
from stillup.wire.api_shapes import Problem
from stillup.wire.api_version import API_HEADER
from stillup.wire.operations import OPERATIONS
from tests.core.story import NEW, serving
from tests.daemon.example_engines import EFFECTS, engine_of

ROOT = Principal(uid=0, gid=0, pid=77)
DONE = {"type": "http.request", "body": b"", "more_body": False}


async def _bug(_: Call) -> Any:
    raise ZeroDivisionError


class Asked:
    """One request to the API, and its answer."""

    def __init__(self, handler: Handler = _bug) -> None:
        self.told: list[dict[str, Any]] = []
        handlers = dict.fromkeys((operation.name for operation in OPERATIONS), handler)
        api = Api(handlers, Rules(), Audit(lambda _, data: self.told.append(dict(data))))
        self._app = api.at(ApiSocket.CONTROL)
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    async def ask(self, method: str, path: str, version: str = "", who: Principal = ROOT) -> None:
        headers = [(API_HEADER.lower().encode(), version.encode())] if version else []
        scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b""}

        async def receive() -> dict[str, Any]:
            return DONE

        async def send(message: Any) -> None:
            self.status = message.get("status", self.status)
            self.headers |= dict(message.get("headers", ()))
            self.body += message.get("body", b"")

        await self._app({**scope, "state": {"identity": Identity(who)}}, receive, send)

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
    engine = engine_of(story.fleet)
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


@pytest.mark.parametrize(("unseen", "role"), [("", Role.ADMIN), ("its environment cannot be read", Role.VIEWER)])
async def test_who_cannot_be_looked_at_is_answered_as_a_viewer(unseen: str, role: Role) -> None:
    """It may be a worker: what failed workers wrote is not for it, whatever its uid is."""
    calls: list[Call] = []

    async def answer(call: Call) -> Any:
        calls.append(call)
        return Response()

    await Asked(answer).ask("GET", "/v1/status", who=replace(ROOT, unseen=unseen))
    assert [call.role for call in calls] == [role]


@pytest.mark.parametrize(("role", "shown"), [(Role.VIEWER, False), (Role.OPERATOR, True)])
@pytest.mark.parametrize("look", ["_generations", "_workers"])
async def test_the_apps_words_are_for_operators(look: str, role: Role, *, shown: bool) -> None:
    """What an app calls its threads is its own words, which a viewer is not to read."""
    story = serving(1)
    story.tell(Reported(1, WorkerFigures({"idle": 1}, threads="secret")))
    handlers = Handlers.__new__(Handlers)  # such a look needs nothing else of it
    handlers._engine = engine_of(story.fleet)
    call = _Call()
    call.role = role
    answer = await getattr(handlers, look)(call)
    assert (b"secret" in answer.body) is shown
    assert b'"idle": 1' in answer.body
