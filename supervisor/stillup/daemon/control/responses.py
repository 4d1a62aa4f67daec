"""Answers of the control API: JSON, and problem documents (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.responses import Response

from stillup.core.amounts import amount
from stillup.core.availability import CORDONED, why_unready
from stillup.core.model import Fleet
from stillup.core.states import CALLED_OFF
from stillup.errors import Refused
from stillup.wire.api_operation import JSON
from stillup.wire.api_shapes import ListenerView, LiveView, Problem, ReadyView, RolloutView, ScalingView
from stillup.wire.api_version import API_HEADER, version
from stillup.wire.problem_types import PROBLEM, PROBLEM_TYPES

RETRY_AFTER: Final = "1"
"""Seconds after which somebody who found no room may ask again."""


def json(body: object, status: int = 200, location: str = "", media_type: str = JSON) -> Response:
    """A body as people like to read it."""
    content = msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n"
    return Response(content, status, {"Location": location} if location else None, media_type)


def problem(
    code: str,
    detail: str,
    *,
    rollout: RolloutView | None = None,
    scaling: ScalingView | None = None,
    location: str = "",
    status: int | None = None,
) -> Response:
    """A problem document, of a type in the table; ``status``: another one than that has."""
    kind = PROBLEM_TYPES[code]
    status = status if status is not None else kind.status
    body = Problem(kind.urn, kind.title, status, detail, rollout, scaling, kind.help)
    response = json(body, status, location, PROBLEM)
    if code == "unavailable":  # what is in the way may have gone in a moment (RFC 9110, 10.2.3)
        response.headers["Retry-After"] = RETRY_AFTER
    return response


def live() -> Response:
    """Of ``/livez``: whoever reads it has its answer."""
    return json(LiveView())


def ready(fleet: Fleet, cordon_status: int, listeners: Sequence[ListenerView] = ()) -> Response:
    """Of ``/readyz``.

    Args:
        fleet: which serves, or does not.
        cordon_status: what a service that serves, and is cordoned, answers with.
        listeners: as they are now. Where nobody can connect to any of them, the service is not ready.
    """
    why = why_unready(fleet)
    troubled = [f"{one.address}: {one.trouble}" for one in listeners if one.trouble]
    if why in ("", CORDONED) and troubled and len(troubled) == len(listeners):
        return problem("not-ready", f"nobody can connect ({'; '.join(troubled)}): 'stillup reload' puts it back")
    if why == CORDONED:
        return problem("cordoned", f"{why}; requests are served", status=cordon_status)
    return problem("not-ready", why) if why else json(ReadyView(trouble=troubled))


def whole(response: Response) -> str:
    """An answer as it is sent, the last of its connection: for who sends it in our place."""
    headers = {**response.headers, API_HEADER: version(), "date": formatdate(usegmt=True), "connection": "close"}
    lines = [f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines) + "\r\n\r\n" + bytes(response.body).decode()


def refused(error: Refused, headers: Mapping[str, str] | None = None) -> Response:
    """What was refused, and why."""
    response = problem(error.code, str(error))
    response.headers.update(headers or {})
    return response


def aborted(view: RolloutView, location: str) -> Response:
    """A rollout that was waited for in vain."""
    code = "superseded" if view.reason == "superseded" else "rollout-aborted"
    what = f"generation {view.generation}" if view.generation is not None else f"reload {view.id}"
    detail = f"{what} was called off" if view.reason == CALLED_OFF else f"{what} was rejected ({view.reason})"
    if view.failure is not None:
        detail = f"{detail}: {view.failure.worker} {view.failure.message}"
    return problem(code, detail, rollout=view, location=location)


def _crashed(view: RolloutView) -> str:
    return f"generation {view.generation} crashed ({amount(view.deaths, 'death')})"


def rolled_back(view: RolloutView, location: str) -> Response:
    """A rollout that succeeded, and was taken back before its waiter heard of it."""
    detail = f"{_crashed(view)}: rolled back to {view.previous_release}"
    return problem("rolled-back", detail, rollout=view, location=location)


def probation_failed(view: RolloutView, location: str) -> Response:
    """A rollout that succeeded, and whose generation has crashed and stays, or was replaced or stopped meanwhile."""
    if view.reason:
        detail = f"{_crashed(view)} and stays: there is nothing to go back to"
        return problem("probation-failed", f"{detail} ({view.reason})", rollout=view, location=location)
    detail = f"generation {view.generation} does not serve any more"
    if view.stopped:
        detail = f"{detail}: the service was stopped in its probation"
        return problem("stopping", detail, rollout=view, location=location)
    detail = f"{detail}: another took its place in its probation"
    return problem("superseded", detail, rollout=view, location=location)


def not_scaled(view: ScalingView, location: str) -> Response:
    """A request for more or fewer workers that was waited for in vain."""
    detail = f"{view.workers_serving} of {view.workers_wanted} workers serve ({view.reason})"
    if view.failure is not None:
        more = view.workers_wanted > view.workers_before
        tried = f"its slot is tried again{f', unless you scale to {view.workers_before}' if more else ''}"
        detail = f"{detail}: {view.failure.worker} {view.failure.message}; {tried}"
    code = view.reason if view.reason in ("superseded", "stopping") else "scaling-aborted"
    return problem(code, detail, scaling=view, location=location)
