"""Who may ask the dashboard anything: pages that it has served itself, to the user who has started it.

A port of this host is open to every user of it, and to each page of each site that a browser shows. So of every
request is asked, in this order: whose the connection is, by the kernel's word; whether it was meant for us, which a
name that somebody has pointed at 127.0.0.1 is not (DNS rebinding); whether a page of another site sends it; and, below
/api, the page's token.
"""

from __future__ import annotations

import os
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stillup.client.dashboard.dashboard_keys import DashboardKeys
from stillup.errors import StillupError
from stillup.host.socket_owner import owner

HOST: Final = "127.0.0.1"
API: Final = "/api"
MOST_BODY: Final = 4096
"""Bytes of a request's body."""
_HTTP_PORT: Final = 80
"""Which a browser does not say."""
_SAFE_SITES: Final = (b"same-origin", b"none")
"""``Sec-Fetch-Site`` of our own pages, and of an address that a person has typed (Fetch Metadata, W3C)."""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
"""For every answer, also those of the server itself to what is no HTTP."""


class DashboardGuard:
    """An ASGI app that asks another one only what may be asked. ``port``: the one that is listened at."""

    def __init__(self, app: ASGIApp, port: int, keys: DashboardKeys) -> None:
        self._app = app
        self._keys = keys
        names = [f"{name}:{port}" for name in (HOST, "localhost")]
        names += [HOST, "localhost"] if port == _HTTP_PORT else []
        self._hosts = [name.encode() for name in names]
        self._uid = os.geteuid()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a body of MOST_BODY bytes at most, or say why not."""
        refusal = self._refusal(scope)
        body = b""
        more = refusal is None
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MOST_BODY:
                refusal, more = (413, f"a request has {MOST_BODY} bytes at most"), False
        if refusal is not None:
            status, text = refusal
            headers = {"Allow": "GET, POST"} if status == 405 else {}  # noqa: PLR2004 - Method Not Allowed
            headers |= {"Connection": "close"}  # what is left of its body is not read
            await PlainTextResponse(f"{text}\n", status, headers)(scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, again, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the text by which it is refused; None if it is not."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if (why := self._not_ours(scope)) is not None:
            return 403, why
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return 421, "this is no name of the dashboard"
        origins = [value for name, value in headers if name == b"origin"]
        if any(value != b"http://" + hosts[0] for value in origins):
            return 403, "a page of another site asks"
        if any(value not in _SAFE_SITES for name, value in headers if name == b"sec-fetch-site"):
            return 403, "a page of another site asks"
        if scope["method"] not in ("GET", "POST"):
            return 405, "there are only GET and POST"
        path = scope["path"]
        if (path == API or path.startswith(f"{API}/")) and not self._has_token(headers):
            return 401, "the page's token is missing, or of an earlier dashboard"
        return None

    def _not_ours(self, scope: Scope) -> str | None:
        """Why the connection is not of our own user, if it is not."""
        client, server = scope.get("client"), scope.get("server")
        try:
            uid = owner(tuple(client), tuple(server)) if client and server else None
        except StillupError as error:
            return str(error)
        return None if uid == self._uid else "this is another user's dashboard"

    def _has_token(self, headers: list[tuple[bytes, bytes]]) -> bool:
        said = [value for name, value in headers if name == b"authorization"]
        kind, _, token = said[0].decode("latin-1").partition(" ") if len(said) == 1 else ("", "", "")
        return kind.lower() == "bearer" and self._keys.knows(token)
