"""Answers whose app hands them over, and that go on at another worker.

The ASGI extension ``http.response.handoff`` (docs/guide.md, *Sessions*), message by message:

1. The app says with ``"handoff": True`` in ``http.response.start`` that it can hand over. The extension in its scope
   has ``ready`` then: whether this answer can be. It has not where middleware has kept the word to itself.
2. Once the worker drains the app sends ``http.response.handoff`` with its state, between two parts of the body. If the
   extension has ``handed`` then, the app has no connection any more, and what it sends goes nowhere. Otherwise nothing
   has happened: the answer goes on here, and may be handed over later.
3. The app at the next worker is called with the request made again and the state. Its start is not sent: it has to have
   ``"handoff": True``, and the status, the content type and the length that the client was told. Until then nothing is
   written; whatever the app does instead cuts the answer, which its client sees from the missing end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from stillup.asgi.resumption import RESUMING, state_of
from stillup.core.crossing import ResumeRefusal
from stillup.wire.session_format import BODY_LIMIT, OpenAnswer

if TYPE_CHECKING:
    from stillup.asgi.movable_connection import MovableConnection

HANDOFF: Final = "http.response.handoff"
"""The extension, and the type of its message."""
_START: Final = "http.response.start"
_WITHOUT_BODY: Final = frozenset({204, 304})
_UNMADE: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})
"""Of a request that is made again: its body is there, and goes with it."""


class _Gone:
    """The transport of a request that has none any more."""

    def write(self, data: object) -> None:
        pass

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return True


_GONE: Final = _Gone()


def keep(kept: bytes | None, body: bytes) -> bytes | None:
    """What is kept of a request's body; None: it is more than may be made again."""
    return kept + body if kept is not None and len(kept) + len(body) <= BODY_LIMIT else None


def offer(cycle: Any, start: Any) -> None:
    """Tell an app that says so whether it may hand over the answer that it begins."""
    protocol = cycle.transport.get_protocol()
    cycle.handoff["ready"] = cycle.can_hand_over = protocol.site.can_move and _can_go_on(cycle, start)


def _can_go_on(cycle: Any, start: Any) -> bool:
    scope = cycle.scope
    if scope["http_version"] != "1.1" or scope["method"] == "HEAD" or start["status"] in _WITHOUT_BODY:
        return False
    if cycle.kept is None or any(name == b"upgrade" for name, _ in scope["headers"]):
        return False
    names = [name.lower() for name, _ in start["headers"]]
    if b"content-encoding" in names or b"trailer" in names:  # made by what has a state of its own
        return False
    return names.count(b"content-length") + names.count(b"transfer-encoding") <= 1


async def hand_over(cycle: Any, message: Any) -> None:
    """Take the state that an app leaves to the next one, if its answer may go on there.

    Raises:
        TypeError: as ``state_of``.
        ValueError: likewise.
    """
    state = state_of(message)
    if not cycle.can_hand_over:
        return
    protocol: MovableConnection = cycle.transport.get_protocol()
    await protocol.site.drain_begins.wait()  # an app may be told of the drain some moments before
    if cycle.disconnected or cycle.response_complete or cycle.more_body:
        return
    body = keep(cycle.kept, bytes(cycle.body))
    if body is None or not protocol.may_hand_over():
        return
    scope, start = cycle.scope, cycle.answer
    target = scope["raw_path"].removeprefix(protocol.root_path.encode("ascii"))
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    length = _told(start["headers"], b"content-length")
    answer = OpenAnswer(
        state=state,
        method=scope["method"],
        target=target.decode("latin-1"),
        headers=list(scope["headers"]),
        status=start["status"],
        body=body,
        content_type=_told(start["headers"], b"content-type"),
        length=int(length) if length is not None else None,
        left=protocol.left_to_send() if length is not None else 0,
        keep_alive=protocol.is_kept(),
    )
    cycle.handoff["handed"] = True
    # The app may go on for a while, and fail: none of that is to the client.
    cycle.disconnected, cycle.began, cycle.transport = True, 0, _GONE
    cycle.message_event.set()
    protocol.hand_over(answer)


def head_of(answer: OpenAnswer) -> bytes:
    """The request of an answer, made again, with its body."""
    lines = [f"{answer.method} {answer.target} HTTP/1.1".encode("latin-1")]
    lines += [name + b": " + value for name, value in answer.headers if name not in _UNMADE]
    if answer.body:
        lines.append(b"content-length: %d" % len(answer.body))
    return b"\r\n".join([*lines, b"", answer.body])


def start_of(answer: OpenAnswer) -> dict[str, Any]:
    """How the answer began, as far as that is known here."""
    headers = [(b"content-type", answer.content_type)] if answer.content_type is not None else []
    return {"type": _START, "status": answer.status, "headers": headers}


def going_on(app: Any, answer: OpenAnswer, refuse: Callable[[ResumeRefusal], None]) -> Any:
    """The app, called once more for a request whose answer has begun elsewhere; ``refuse`` is told why it does not."""

    async def again(scope: Any, receive: Any, send: Any) -> None:
        cycle = send.__self__
        RESUMING.set(True)
        scope["headers"] = list(answer.headers)
        cycle.handoff["state"] = answer.state
        goes_on = False

        async def resuming(message: Any) -> None:
            nonlocal goes_on
            if goes_on:
                await send(message)
            elif not cycle.disconnected:
                if (why := _otherwise(answer, message)) is not None:
                    _cut(cycle)
                    refuse(why)
                    return
                goes_on = True
                cycle.transport.get_protocol().go_on(cycle, answer)
                cycle.answer = {**message, "headers": list(message.get("headers", ()))}
                offer(cycle, cycle.answer)

        try:
            await app(scope, receive, resuming)
        finally:
            if not goes_on and not cycle.disconnected:
                _cut(cycle)
                refuse(ResumeRefusal.APP_FAILED)

    return again


def _otherwise(answer: OpenAnswer, message: Any) -> ResumeRefusal | None:
    """Why the answer that an app begins is not the one that its client has the beginning of; None: it is."""
    if message["type"] != _START:
        return ResumeRefusal.APP_FAILED
    if message["status"] != answer.status:
        return ResumeRefusal.APP_CLOSED
    if not message.get("handoff"):
        return ResumeRefusal.UNAWARE
    headers = list(message.get("headers", ()))
    length = str(answer.length).encode() if answer.length is not None else None
    same = _told(headers, b"content-type") == answer.content_type and _told(headers, b"content-length") == length
    return None if same and _told(headers, b"content-encoding") is None else ResumeRefusal.OTHER_ANSWER


def _cut(cycle: Any) -> None:
    cycle.disconnected = True
    cycle.message_event.set()
    cycle.transport.close()


def _told(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    """The value of a header of an answer; None if it has none."""
    return next((bytes(value) for name, value in headers if name.lower() == wanted), None)
