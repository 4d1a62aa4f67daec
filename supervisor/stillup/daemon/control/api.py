"""The control API: for each row of the table a route, which looks at the caller before its handler is called."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stillup import __version__
from stillup.core.access import Principal, Role, Rules, admit, role_of
from stillup.daemon.control import responses
from stillup.daemon.control.audit import Audit, Audited
from stillup.daemon.control.peer_identities import Identity
from stillup.errors import NotPermitted, Refused
from stillup.wire.api_operation import ApiSocket, Operation
from stillup.wire.api_version import API_HEADER, check_path, check_version, version
from stillup.wire.operations import OPERATIONS


class Call(msgspec.Struct, frozen=True):
    """One request, once it is known what is asked for and that the caller may."""

    operation: Operation
    api_socket: ApiSocket
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
        self, handlers: Mapping[str, Handler], rules: Rules, audit: Audit, observers: int | None = None
    ) -> None:
        """Answer the operations of the table by the handlers of their names; ``audit`` is told of each request.

        ``observers``: the group whose members are viewers at observe.sock.
        """
        self._audit = audit
        self._handlers = handlers
        self._rules = rules
        self._observers = observers

    def at(self, api_socket: ApiSocket) -> ASGIApp:
        """The operations that can be asked for at a api_socket, as an ASGI app.

        It wants the caller's Identity in ``scope["state"]["identity"]``. A request at observe.sock is known,
        so that it can be denied.
        """
        routes = [
            self._route(operation, api_socket)
            for operation in OPERATIONS
            if api_socket in operation.sockets or (api_socket is ApiSocket.OBSERVE and operation.method != "GET")
        ]
        app = Starlette(
            routes=routes,
            exception_handlers={Refused: _refused, HTTPException: _http_error, Exception: _bug},  # type: ignore[dict-item]
        )
        app.router.redirect_slashes = False
        return _Versioned(app)

    def _route(self, operation: Operation, api_socket: ApiSocket) -> Route:
        handler = self._handlers[operation.name]

        async def answer(request: Request) -> Response:
            principal, role = await self._caller(request, api_socket)
            with self._audit.request(request.method, request.scope["path"], principal, role) as audited:
                _check_version(request)
                if api_socket not in operation.sockets:
                    raise NotPermitted(
                        f"{principal} is at {api_socket}, where one may only look: ask at {ApiSocket.CONTROL}"
                    )
                if api_socket is not ApiSocket.ADMIN:  # no role is known there, and none is needed
                    role = admit(principal, role, operation.role)
                query: dict[str, list[str]] = {}
                for name, text in request.query_params.multi_items():
                    query.setdefault(name, []).append(text)
                values = operation.read(request.path_params, query)
                return await handler(Call(operation, api_socket, principal, role, values, request, audited))

        return Route(operation.path, answer, methods=[operation.method])

    def has_right(self, api_socket: ApiSocket, principal: Principal) -> bool:
        """Whether that caller has a role there; at --admin-bind none is known, and none needed."""
        return api_socket is ApiSocket.ADMIN or self._role(api_socket, principal) is not Role.NONE

    async def _caller(self, request: Request, api_socket: ApiSocket) -> tuple[Principal, Role]:
        """Who asks, and with which role there."""
        identity: Identity = request.state.identity
        principal = await identity.seen()
        return principal, self._role(api_socket, principal)

    def _role(self, api_socket: ApiSocket, principal: Principal) -> Role:
        rules = self._rules
        if api_socket is ApiSocket.OBSERVE and self._observers is not None:
            rules = rules.letting_view(self._observers)
        return role_of(principal, rules, own_uid=os.geteuid())


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
    return responses.refused(error)


async def _bug(_: Request, error: Exception) -> Response:
    """What is ours to blame. It is raised on after this answer, so the log has its traceback."""
    detail = f"a bug in the supervisor ({type(error).__name__}): its log says where; what serves goes on"
    return responses.problem("bug", detail)


async def _http_error(request: Request, error: HTTPException) -> Response:
    """No operation was asked for, so nothing is audited: else anybody who can connect could fill the history."""
    code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "usage")
    path = request.scope["path"]  # request.url would look at the Host header, which may be anything
    try:
        _check_version(request)  # to a later client what it asked for is there, and this supervisor is too old
        check_path(path, __version__)
    except Refused as refusal:
        return responses.refused(refusal)
    detail = f"{request.method} {path}: {error.detail}; GET /v1/openapi.json says what there is"
    return responses.refused(Refused(detail, code=code), error.headers)
