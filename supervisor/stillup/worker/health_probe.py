"""The health probe: one GET, sent to the app in this process before it accepts anything.

Import and lifespan alone are a weak gate: an app with broken routes starts and then answers 500.

1. What is healthy ends the probe. Anything else is told as it comes, and asked again until the time is over.
2. What will not get better ends it at once: an exception, or FOR_GOOD times in a row the same redirect (3xx), the same
   client error (4xx), or no answer by an app that has returned.
3. It is asked once at least. A later try that the deadline cuts off before SILENCE seconds are over does not count:
   the answer before it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from stillup.core.worker_settings import WorkerSettings, probe_path
from stillup.errors import StillupError
from stillup.worker.health_hints import hint

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
FOR_GOOD: Final = 5
"""So many times in a row the same answer, and it is taken for one that will not change."""
SILENCE: Final = 1.0
"""Seconds without an answer after which it is told that there is none yet."""
_LASTING: Final = range(300, 500)
"""Statuses that an app which is still getting ready does not have: that says 503."""


class UnhealthyError(StillupError):
    """The app did not answer well. Its cause is the exception that the app has raised, if it has."""


class UnansweredError(UnhealthyError):
    """The app has not come back with an answer. Until the event loop goes on it is where it waits."""


class Answer(msgspec.Struct, frozen=True):
    """What the app has answered; a status of 0 is no answer."""

    status: int
    location: str = ""
    """Where a redirect leads."""


async def probe(
    app: Any,
    settings: WorkerSettings,
    state: Mapping[str, Any],
    seconds: float,
    tell: Callable[[int], None] = lambda _: None,
) -> str:
    """Ask until the answer is healthy; what it was, as ``/healthz 200``.

    Args:
        app: an ASGI application.
        settings: what is asked, how, and which answers are healthy.
        state: what the lifespan left for requests.
        seconds: how long to try; the first time is asked in any case.
        tell: called with the status of each answer that is not healthy, and with 0 after each SILENCE without one.

    Raises:
        UnhealthyError: it was not healthy in time, or never will be; the message has the last answer and the number of
            tries.
    """
    loop = asyncio.get_running_loop()
    begun, shown, seconds = loop.time(), probe_path(settings), max(0.0, seconds)
    end = begun + seconds
    last, same, tries, pause = Answer(0), 0, 0, FIRST_PAUSE
    while not tries or loop.time() < end:
        asked = loop.time()
        task = loop.create_task(_get(app, settings, state))
        try:
            came = await _within(task, end, tell)
        finally:
            task.cancel()
        if not came and tries and loop.time() - asked < SILENCE:
            break
        tries += 1
        if not came:
            raise UnansweredError(f"{shown} did not answer ({_tries(tries)} in {seconds:.1f} s)")
        if (error := _raised(task)) is not None:
            raise UnhealthyError(f"{shown} raised {type(error).__name__}: {error}") from error
        answer = task.result()
        if any(first <= answer.status <= last_one for first, last_one in settings.health_status):
            return f"{shown} {answer.status}"
        tell(answer.status)
        same = same + 1 if answer == last else 1
        last = answer
        if same >= FOR_GOOD and (answer.status in _LASTING or not answer.status):
            seconds = loop.time() - begun
            break
        await asyncio.sleep(min(pause, max(0.0, end - loop.time())))
        pause = min(pause * 2, LONGEST_PAUSE)
    said = f"answered {last.status}" if last.status else "did not answer"
    what = hint(last.status, last.location)
    raise UnhealthyError(f"{shown} {said} ({_tries(tries)} in {seconds:.1f} s){f': {what}' if what else ''}")


async def _within(task: asyncio.Task[Answer], end: float, tell: Callable[[int], None]) -> bool:
    """Wait for an answer until ``end``, by the loop's clock; whether it came.

    An app that answers without a wait has done so even where ``end`` is over. One that shrugs off its cancellation is
    left to itself: it must not outlast the deadline.
    """
    loop = asyncio.get_running_loop()
    while True:
        left = max(0.0, end - loop.time())
        done, _ = await asyncio.wait({task}, timeout=min(left, SILENCE))
        if done:
            return True
        if left < SILENCE:
            return False
        tell(0)


def _tries(number: int) -> str:
    return f"{number} {'try' if number == 1 else 'tries'}"


def _raised(answer: asyncio.Task[Answer]) -> BaseException | None:
    """What the app raised instead of an answer, or after it; an app may also cancel itself."""
    return asyncio.CancelledError("by the app itself") if answer.cancelled() else answer.exception()


def _headers(settings: WorkerSettings) -> list[tuple[bytes, bytes]]:
    """The probe's headers; one that is given takes the place of ours with that name."""
    given = [(name.lower(), value) for name, value in settings.health_headers]
    own = [("host", settings.health_host), ("user-agent", "stillup-probe")]
    names = {name for name, _ in given}
    return [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in [*((name, value) for name, value in own if name not in names), *given]
    ]


async def _get(app: Any, settings: WorkerSettings, state: Mapping[str, Any]) -> Answer:
    raw, _, query = settings.health_path.partition("?")
    headers = _headers(settings)
    # What a proxy in front would say, and no proxy's address is needed to be believed.
    https = (b"x-forwarded-proto", b"https") in headers
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https" if https else "http",
        "path": unquote(raw),
        "raw_path": raw.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 0),
        "server": (settings.health_host, None),
        "state": dict(state),
    }
    answer = Answer(0)
    asked = False
    answered = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal answer
        if message["type"] == "http.response.start":
            answer = Answer(message["status"], _location(message.get("headers", ())))
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            answered.set()

    await app(scope, receive, send)
    return answer


def _location(headers: Any) -> str:
    return next((bytes(value).decode("latin-1") for name, value in headers if bytes(name).lower() == b"location"), "")
