"""The routes of the control API. A handler submits an event, waits if it was asked to, and renders; it decides nothing.

No body ever chooses code to run: none is read.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from supervisor import __version__
from supervisor.core.access import Principal, admit
from supervisor.core.events import ReloadAsked, ScaleAsked, StopAsked
from supervisor.core.model import Fleet, Release, Rollout, RolloutState, ScalingState, ServiceState
from supervisor.daemon.engine import Engine
from supervisor.daemon.holder import Holder
from supervisor.errors import Refused
from supervisor.wire import control
from supervisor.wire.control import PROBLEM, PROBLEM_TYPE, Problem, RolloutView, ScalingView

_STATUS = {
    "not-permitted": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "out-of-order": 409,
    "rollout-in-progress": 409,
    "rollout-aborted": 409,
    "rolled-back": 409,
    "scaling-aborted": 409,
    "superseded": 409,
    "stopping": 503,
    "not-ready": 503,
    "release": 422,
    "trial-failed": 422,
    "unavailable": 503,
    "usage": 400,
}
"""The HTTP status of each problem; whatever is not here is 409."""


class Api:
    """The control API as an ASGI app. It wants the caller in ``scope["state"]["principal"]``."""

    def __init__(
        self,
        engine: Engine,
        resolve: Callable[[], Awaitable[Release]],
        reexec: Callable[[], Awaitable[None]],
        *,
        name: str,
        holder: Holder,
        reexecs: int,
    ) -> None:
        """Drive ``engine``; ``resolve`` looks at the disk for what a reload is to run, ``reexec`` replaces the program.

        ``reexecs``: how often that was done.
        """
        self._engine = engine
        self._resolve = resolve
        self._reexec = reexec
        self._reexecs = reexecs
        self._name = name
        self._holder = holder
        routes = [
            Route("/v1/status", self._status),
            Route("/v1/reload", self._reload, methods=["POST"]),
            Route("/v1/rollouts/{id:int}", self._rollout),
            Route("/v1/scale", self._scale, methods=["POST"]),
            Route("/v1/scalings/{id:int}", self._scaling),
            Route("/v1/supervisor/reexec", self._replace_program, methods=["POST"]),
            Route("/v1/stop", self._stop, methods=["POST"]),
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
        ]
        handlers = {Refused: _refused, HTTPException: _http_error}
        self._app: ASGIApp = Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the caller in, or answer 403."""
        principal: Principal = scope["state"]["principal"]
        try:
            admit(principal, own_uid=os.geteuid())
        except Refused as refusal:
            await _problem(refusal.code, str(refusal))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _status(self, _: Request) -> Response:
        now = asyncio.get_running_loop().time()
        return _json(
            control.status(
                self._engine.fleet,
                name=self._name,
                version=__version__,
                pid=os.getpid(),
                listeners=self._holder.infos,
                waiting=self._holder.waiting,
                capacity=self._holder.capacity,
                reexecs=self._reexecs,
                now=now,
            )
        )

    async def _reload(self, request: Request) -> Response:
        wait = _wait(request, {"true": "until the cut-over", "drained": "until the old generation has left"})
        principal: Principal = request.state.principal
        release = await self._resolve()
        fleet = await self._engine.ask(ReloadAsked(release, f"asked by {principal}"))
        number = fleet.last_rollout
        location = {"Location": f"/v1/rollouts/{number}"}
        if wait is None:
            return _json(_view(fleet, number), 202, location)
        fleet = await self._engine.until(_reached(number, wait))
        view = _view(fleet, number)
        if view.outcome == "aborted":
            return _aborted(view, location)
        if view.outcome == "rolled-back":
            return _rolled_back(view, location)
        return _json(view, 200, location)

    async def _rollout(self, request: Request) -> Response:
        return _json(_view(self._engine.fleet, request.path_params["id"]))

    async def _scale(self, request: Request) -> Response:
        wait = _wait(request, {"true": "until as many serve, and whoever is beyond has been told to leave"})
        fleet = await self._engine.ask(ScaleAsked(_workers(request)))
        number = fleet.last_scaling
        location = {"Location": f"/v1/scalings/{number}"}
        if wait is None:
            return _json(_scaling_view(fleet, number), 202, location)
        fleet = await self._engine.until(_scaled(number))
        view = _scaling_view(fleet, number)
        if view.outcome == "aborted":
            return _not_scaled(view, location)
        return _json(view, 200, location)

    async def _scaling(self, request: Request) -> Response:
        return _json(_scaling_view(self._engine.fleet, request.path_params["id"]))

    async def _stop(self, request: Request) -> Response:
        fleet = await self._engine.ask(StopAsked(f"asked by {request.state.principal}"))
        return _json({"state": fleet.state}, 202)

    async def _replace_program(self, _: Request) -> Response:
        await self._reexec()
        return _json({"state": "replacing", "reexecs": self._reexecs}, 202)

    async def _livez(self, _: Request) -> Response:
        return _json({"live": True})

    async def _readyz(self, _: Request) -> Response:
        state = self._engine.fleet.state
        if state is not ServiceState.SERVING:
            raise Refused(f"the service is {state}", code="not-ready")
        return _json({"ready": True})


def _wait(request: Request, known: Mapping[str, str]) -> str | None:
    """What the caller wants to wait for: a key of ``known``, whose values say what each means."""
    wait = request.query_params.get("wait")
    if wait is not None and wait not in known:
        choices = " or ".join(f"'{word}' ({meaning})" for word, meaning in known.items())
        raise Refused(f"wait={wait}: it is {choices}", code="usage")
    return wait


def _workers(request: Request) -> int:
    """How many workers are wanted; whether so many can be had is not decided here."""
    text = request.query_params.get("workers")
    if text is None:
        raise Refused("how many? POST /v1/scale?workers=N", code="usage")
    # int() would also take "1_000", " 3 " and the digits of every script, and refuses no length that we would.
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise Refused(f"workers={text}: it is a number of workers, such as 4", code="usage")
    return int(text)


def _reached(number: int, wait: str) -> Callable[[Fleet], bool]:
    def reached(fleet: Fleet) -> bool:
        rollout = fleet.rollout(number)
        if rollout is None:
            return True
        if wait == "drained":
            return rollout.state in (RolloutState.DONE, RolloutState.ABORTED, RolloutState.ROLLED_BACK)
        return not rollout.state.pending

    return reached


def _scaled(number: int) -> Callable[[Fleet], bool]:
    def scaled(fleet: Fleet) -> bool:
        scaling = fleet.scaling(number)
        return scaling is None or scaling.state is not ScalingState.UNDER_WAY

    return scaled


def _scaling_view(fleet: Fleet, number: int) -> ScalingView:
    scaling = fleet.scaling(number)
    if scaling is None:
        raise Refused(f"scaling {number} is not known, or was forgotten", code="not-found")
    return control.scaling(fleet, scaling, asyncio.get_running_loop().time())


def _view(fleet: Fleet, number: int) -> RolloutView:
    rollout: Rollout | None = fleet.rollout(number)
    if rollout is None:
        raise Refused(f"rollout {number} is not known, or was forgotten", code="not-found")
    return control.rollout(fleet, rollout, asyncio.get_running_loop().time())


def _aborted(view: RolloutView, headers: dict[str, str]) -> Response:
    code = "superseded" if view.reason == "superseded" else "rollout-aborted"
    what = f"generation {view.generation}" if view.generation is not None else f"reload {view.id}"
    detail = f"{what} was rejected ({view.reason})"
    if view.failure is not None:
        detail = f"{detail}: {view.failure.worker} {view.failure.message}"
    return _problem(code, detail, rollout=view, headers=headers)


def _rolled_back(view: RolloutView, headers: dict[str, str]) -> Response:
    detail = f"generation {view.generation} crashed ({view.deaths} deaths): rolled back to {view.previous_release}"
    return _problem("rolled-back", detail, rollout=view, headers=headers)


def _not_scaled(view: ScalingView, headers: dict[str, str]) -> Response:
    detail = f"{view.workers_serving} of {view.workers_wanted} workers serve ({view.reason})"
    if view.failure is not None:
        more = view.workers_wanted > view.workers_before
        tried = f"its slot is tried again{f', unless you scale to {view.workers_before}' if more else ''}"
        detail = f"{detail}: {view.failure.worker} {view.failure.message}; {tried}"
    code = view.reason if view.reason in ("superseded", "stopping") else "scaling-aborted"
    return _problem(code, detail, scaling=view, headers=headers)


async def _refused(_: Request, error: Refused) -> Response:
    return _problem(error.code, str(error))


async def _http_error(_: Request, error: HTTPException) -> Response:
    code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "refused")
    return _problem(code, error.detail, headers=dict(error.headers or {}))


def _problem(
    code: str,
    detail: str,
    *,
    rollout: RolloutView | None = None,
    scaling: ScalingView | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    status = _STATUS.get(code, 409)
    body = Problem(f"{PROBLEM_TYPE}{code}", code.replace("-", " "), status, detail, rollout, scaling)
    return _json(body, status, headers, media_type=PROBLEM)


def _json(
    body: object, status: int = 200, headers: dict[str, str] | None = None, media_type: str = "application/json"
) -> Response:
    content = msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n"
    return Response(content, status, headers, media_type)
