"""What the operations of the control API do: submit an event, wait if that was asked for, and render. None decides."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping

import uvicorn
from starlette.responses import Response

from supervisor import __version__
from supervisor.core.access import Role
from supervisor.core.events import AbortAsked, ReloadAsked, RollbackAsked, ScaleAsked, StopAsked
from supervisor.core.model import Fleet, Release, RolloutState, ScalingState, ServiceState
from supervisor.core.rollback import previous_release
from supervisor.core.rollout import CALLED_OFF
from supervisor.daemon import answers, events
from supervisor.daemon.api import Call, Handler
from supervisor.daemon.engine import Engine
from supervisor.daemon.figures import Figures
from supervisor.daemon.history import History
from supervisor.daemon.holder import Holder
from supervisor.daemon.metrics import Scene, render
from supervisor.daemon.trace import Trace, TraceResponse
from supervisor.errors import Refused
from supervisor.wire import control, handoff
from supervisor.wire.control import RolloutView, ScalingView
from supervisor.wire.openapi import openapi
from supervisor.wire.operations import OPERATIONS, version


class Handlers:
    """The handlers of one supervisor, by the names of their operations."""

    def __init__(
        self,
        engine: Engine,
        resolve: Callable[[], Awaitable[Release]],
        look: Callable[[Release], Awaitable[str]],
        reexec: Callable[[], Awaitable[None]],
        *,
        name: str,
        holder: Holder,
        trace: Trace,
        history: History,
        reexecs: int,
        figures: Figures,
    ) -> None:
        """Drive ``engine``.

        Args:
            engine: which owns the fleet.
            resolve: looks at the disk for what a reload is to run.
            look: the fingerprint that a release has on the disk now.
            reexec: replaces the supervisor's program.
            name: the service's.
            holder: has the listeners.
            trace: knows who looks at the messages.
            history: of what has happened.
            reexecs: how often the program was replaced.
            figures: have what was counted.
        """
        self._engine = engine
        self._resolve = resolve
        self._look = look
        self._replace = reexec
        self._name = name
        self._holder = holder
        self._trace = trace
        self._history = history
        self._reexecs = reexecs
        self._figures = figures
        self._document = openapi(__version__)
        self.all: Mapping[str, Handler] = {
            "status": self._status,
            "generations": self._generations,
            "workers": self._workers,
            "listeners": self._listeners,
            "rollout": self._rollout,
            "scaling": self._scaling,
            "events": self._events,
            "whoami": self._whoami,
            "version": self._version,
            "openapi": self._openapi,
            "metrics": self._metrics,
            "livez": self._livez,
            "readyz": self._readyz,
            "reload": self._reload,
            "rollback": self._rollback,
            "abort": self._abort,
            "scale": self._scale,
            "stop": self._stop,
            "trace": self._messages,
            "reexec": self._reexec,
        }

    # Looks

    async def _status(self, call: Call) -> Response:
        view = control.status(
            self._engine.fleet,
            name=self._name,
            version=__version__,
            pid=os.getpid(),
            infos=self._holder.infos,
            waiting=self._holder.waiting,
            capacity=self._holder.capacity,
            reexecs=self._reexecs,
            now=_now(),
        )
        return answers.json(view if call.role.covers(Role.OPERATOR) else control.without_output(view))

    async def _generations(self, _: Call) -> Response:
        return answers.json(control.generations(self._engine.fleet, _now()))

    async def _workers(self, _: Call) -> Response:
        seen = control.generations(self._engine.fleet, _now())
        return answers.json([worker for generation in seen for worker in generation.workers])

    async def _listeners(self, _: Call) -> Response:
        return answers.json(control.listeners(self._holder.infos))

    async def _rollout(self, call: Call) -> Response:
        return answers.json(self._rollout_view(call, self._engine.fleet, call.values["id"]))

    async def _scaling(self, call: Call) -> Response:
        return answers.json(self._scaling_view(call, self._engine.fleet, call.values["id"]))

    async def _events(self, call: Call) -> Response:
        return events.answer(call, self._history)

    async def _whoami(self, call: Call) -> Response:
        who = call.principal
        view = control.Whoami(
            uid=who.uid,
            gid=who.gid,
            groups=sorted(who.groups),
            pid=who.pid,
            login_uid=who.login_uid,
            exe=who.exe,
            role=call.role,
            may=[one.name for one in OPERATIONS if call.door in one.doors and call.role.covers(one.role)],
        )
        return answers.json(view)

    async def _version(self, _: Call) -> Response:
        python = ".".join(str(part) for part in sys.version_info[:3])
        spoken = sorted(handoff.SPOKEN)
        return answers.json(control.Versions(__version__, version(), spoken, python, uvicorn.__version__))

    async def _openapi(self, _: Call) -> Response:
        return answers.json(self._document)

    async def _metrics(self, call: Call) -> Response:
        totals = await self._figures.totals()
        scene = Scene(self._engine.fleet, totals, self._holder.waiting, self._reexecs)
        content, content_type = render(scene, call.request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": content_type})

    async def _livez(self, _: Call) -> Response:
        return answers.json(control.Live())

    async def _readyz(self, _: Call) -> Response:
        state = self._engine.fleet.state
        if state is not ServiceState.SERVING:
            raise Refused(f"the service is {state}", code="not-ready")
        return answers.json(control.Ready())

    async def _messages(self, _: Call) -> Response:
        return TraceResponse(self._trace)

    # Requests

    async def _reload(self, call: Call) -> Response:
        release = await self._resolve()
        fleet = await self._engine.ask(ReloadAsked(release, f"asked by {call.principal}"))
        return await self._rolled_out(call, fleet)

    async def _rollback(self, call: Call) -> Response:
        release = previous_release(self._engine.fleet)
        found = await self._look(release)
        fleet = await self._engine.ask(RollbackAsked(release, found, f"rollback asked by {call.principal}"))
        return await self._rolled_out(call, fleet)

    async def _rolled_out(self, call: Call, fleet: Fleet) -> Response:
        """Answer a request that has begun a rollout, now or when the caller wants it."""
        number, wait = fleet.last_rollout, call.values.get("wait")
        call.audited.accepted(rollout=number)
        location = f"/v1/rollouts/{number}"
        if wait is None:
            return answers.json(self._rollout_view(call, fleet, number), 202, location)
        fleet = await self._until(call, _reached(number, wait))
        view = self._rollout_view(call, fleet, number)
        match view.outcome:
            case "aborted":
                return answers.aborted(view, location)
            case "rolled-back":
                return answers.rolled_back(view, location)
            case _:
                return answers.json(view, 200, location)

    async def _abort(self, call: Call) -> Response:
        fleet = await self._engine.ask(AbortAsked(f"asked by {call.principal}"))
        # Not what was under way when this request came: a reload that came before it may have waited in the queue.
        number = max(rollout.id for rollout in fleet.rollouts if rollout.reason == CALLED_OFF)
        call.audited.accepted(200, rollout=number)
        return answers.json(self._rollout_view(call, fleet, number), 200, f"/v1/rollouts/{number}")

    async def _scale(self, call: Call) -> Response:
        fleet = await self._engine.ask(ScaleAsked(call.values["workers"]))
        number = fleet.last_scaling
        call.audited.accepted(scaling=number)
        location = f"/v1/scalings/{number}"
        if "wait" not in call.values:
            return answers.json(self._scaling_view(call, fleet, number), 202, location)
        fleet = await self._until(call, _scaled(number))
        view = self._scaling_view(call, fleet, number)
        if view.outcome == "aborted":
            return answers.not_scaled(view, location)
        return answers.json(view, 200, location)

    async def _stop(self, call: Call) -> Response:
        fleet = await self._engine.ask(StopAsked(f"asked by {call.principal}"))
        return answers.json(control.Stopping(fleet.state), 202)

    async def _reexec(self, _: Call) -> Response:
        await self._replace()
        return answers.json(control.Replacing(self._reexecs), 202)

    async def _until(self, call: Call, holds: Callable[[Fleet], bool]) -> Fleet:
        """Wait until something holds of the fleet, unless the caller leaves before it does.

        Raises:
            Refused: he has left, and will not read this.
        """
        waiting = asyncio.ensure_future(self._engine.until(holds))
        # All of his request is here (``daemon.requests``): nothing can come but his end.
        leaving = asyncio.ensure_future(call.request.receive())
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Refused("whoever asked has left", code="unavailable")
            return waiting.result()
        finally:
            waiting.cancel()
            leaving.cancel()

    # Rendering

    def _rollout_view(self, call: Call, fleet: Fleet, number: int) -> RolloutView:
        rollout = fleet.rollout(number)
        if rollout is None:
            raise Refused(f"rollout {number} is not known, or was forgotten", code="not-found")
        view = control.rollout(fleet, rollout, _now())
        return view if call.role.covers(Role.OPERATOR) else control.without_output(view)

    def _scaling_view(self, call: Call, fleet: Fleet, number: int) -> ScalingView:
        scaling = fleet.scaling(number)
        if scaling is None:
            raise Refused(f"scaling {number} is not known, or was forgotten", code="not-found")
        view = control.scaling(fleet, scaling, _now())
        return view if call.role.covers(Role.OPERATOR) else control.without_output(view)


def _now() -> float:
    return asyncio.get_running_loop().time()


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
