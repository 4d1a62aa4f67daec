"""Telling endless answers from those that end: by what the app says of them."""

from __future__ import annotations

from typing import Any, Final

STREAMS: Final = "stillup.streams"
"""In the scope of a request whose answer is a stream of events."""
_ENDLESS: Final = b"text/event-stream"


def noting_streams(app: Any) -> Any:
    """The app, with a note in the scope of each request that it answers with ``text/event-stream``."""

    # No coroutine of its own around the app's: every request pays for what stands here.
    def noting(scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] != "http":
            return app(scope, receive, send)

        def noted(message: Any) -> Any:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                if type(headers) is not list:  # an iterator can be read once, and that is not for us
                    headers = list(headers)
                    message = {**message, "headers": headers}
                for name, value in headers:
                    if value.startswith(_ENDLESS) and name.lower() == b"content-type":
                        scope[STREAMS] = True
            return send(message)

        return app(scope, receive, noted)

    return noting
