"""Answers of the control API: JSON, and problem documents (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from supervisor.core.rollout import CALLED_OFF
from supervisor.errors import Refused
from supervisor.wire.control import PROBLEM, PROBLEM_TYPE, Problem, RolloutView, ScalingView
from supervisor.wire.operations import JSON, PROBLEMS


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
) -> Response:
    """A problem document; whatever code the table lacks is a conflict with what goes on."""
    status = PROBLEMS.get(code, 409)
    body = Problem(f"{PROBLEM_TYPE}{code}", code.replace("-", " "), status, detail, rollout, scaling)
    return json(body, status, location, PROBLEM)


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


def rolled_back(view: RolloutView, location: str) -> Response:
    """A rollout that succeeded, and was taken back before its waiter heard of it."""
    detail = f"generation {view.generation} crashed ({view.deaths} deaths): rolled back to {view.previous_release}"
    return problem("rolled-back", detail, rollout=view, location=location)


def not_scaled(view: ScalingView, location: str) -> Response:
    """A request for more or fewer workers that was waited for in vain."""
    detail = f"{view.workers_serving} of {view.workers_wanted} workers serve ({view.reason})"
    if view.failure is not None:
        more = view.workers_wanted > view.workers_before
        tried = f"its slot is tried again{f', unless you scale to {view.workers_before}' if more else ''}"
        detail = f"{detail}: {view.failure.worker} {view.failure.message}; {tried}"
    code = view.reason if view.reason in ("superseded", "stopping") else "scaling-aborted"
    return problem(code, detail, scaling=view, location=location)
