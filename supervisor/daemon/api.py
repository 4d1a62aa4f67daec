"""The control API: for each row of the table a route, which looks at the caller before its handler is called."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from supervisor import __version__
from supervisor.core.access import Principal, Role, Rules, admit, role_of
from supervisor.daemon import answers
from supervisor.daemon.audit import Announce, Audited
from supervisor.daemon.identities import Identity
from supervisor.errors import NotPermitted, Refused
from supervisor.wire.operations import API_HEADER, OPERATIONS, Door, Operation, check_path, check_version, version


@dataclass(frozen=True, slots=True)
class Call:
    """One request, once it is known what is asked for and that the caller may."""

    operation: Operation
    door: Door
    principal: Principal
    role: Role
    values: Mapping[str, Any]
    """What was given for its parameters."""
    request: Request
    audited: Audited
    """To be told when a request for a change is accepted, if that is before it is answered."""


Handler = Callable[[Call], Awaitable[Response]]


class Api:
    """Routes and the handlers behind them."""

    def __init__(
        self, handlers: Mapping[str, Handler], rules: Rules, announce: Announce, observers: int | None = None
    ) -> None:
        """Answer the operations of the table by the handlers of their names; ``announce`` requests for a change.

        ``observers``: the group whose members are viewers at the door for monitoring.
        """
        self._announce = announce
        self._handlers = handlers
        self._rules = rules
        self._observers = observers

    def at(self, door: Door) -> ASGIApp:
        """The operations that can be asked for at a door, as an ASGI app.

        It wants the caller's Identity in ``scope["state"]["identity"]``. A request at the door for monitoring is known,
        so that it can be denied.
        """
        routes = [
            self._route(operation, door)
            for operation in OPERATIONS
            if door in operation.doors or (door is Door.OBSERVE and operation.method != "GET")
        ]
        app = Starlette(
            routes=routes,
            exception_handlers={Refused: _refused, HTTPException: _http_error, Exception: _bug},  # type: ignore[dict-item]
        )
        app.router.redirect_slashes = False
        return _Versioned(app)

    def _route(self, operation: Operation, door: Door) -> Route:
        handler = self._handlers[operation.name]

        async def answer(request: Request) -> Response:
            principal, role = await self._caller(request, door)
            with Audited(self._announce, request.method, request.scope["path"], principal, role) as audited:
                _check_version(request)
                if door not in operation.doors:
                    raise NotPermitted(f"{principal} is at {door}, where one may only look: ask at {Door.CONTROL}")
                if door is not Door.ADMIN:  # whoever gets there may ask for what there is
                    admit(principal, role, operation.role)
                query: dict[str, list[str]] = {}
                for name, text in request.query_params.multi_items():
                    query.setdefault(name, []).append(text)
                values = operation.read(request.path_params, query)
                return await handler(Call(operation, door, principal, role, values, request, audited))

        return Route(operation.path, answer, methods=[operation.method])

    async def _caller(self, request: Request, door: Door) -> tuple[Principal, Role]:
        """Who asks, and his role there."""
        identity: Identity = request.state.identity
        principal = await identity.seen()
        rules = self._rules
        if door is Door.OBSERVE and self._observers is not None:
            rules = rules.letting_view(self._observers)
        return principal, role_of(principal, rules, own_uid=os.geteuid())


class _Versioned:
    """Puts the version of the API on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[API_HEADER] = version()
            await send(message)

        await self._app(scope, receive, send_with_version)


def _check_version(request: Request) -> None:
    if (said := request.headers.get(API_HEADER)) is not None:
        check_version(said, __version__)


async def _refused(_: Request, error: Refused) -> Response:
    return answers.refused(error)


async def _bug(_: Request, error: Exception) -> Response:
    """What is ours to blame. It is raised on after this answer, so the log has its traceback."""
    detail = f"a bug in the supervisor ({type(error).__name__}): its log says where; what serves goes on"
    return answers.problem("bug", detail)


async def _http_error(request: Request, error: HTTPException) -> Response:
    """No operation was asked for, so nothing is audited: whoever may knock could fill the history with that."""
    code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "refused")
    path = request.scope["path"]  # request.url would look at the Host header, which may be anything
    try:
        _check_version(request)  # to a later client what it asked for is there, and this supervisor is too old
        check_path(path, __version__)
    except Refused as refusal:
        return answers.refused(refusal)
    detail = f"{request.method} {path}: {error.detail}; GET /v1/openapi.json says what there is"
    return answers.refused(Refused(detail, code=code), error.headers)
