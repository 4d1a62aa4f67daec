"""What the operations of the control API do: submit an event, wait if that was asked for, and render. None decides."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

import msgspec
import uvicorn
from starlette.responses import Response

from stillup import __version__
from stillup.core.access import Role
from stillup.core.caller_limits import Limits
from stillup.core.events import AbortAsked, CordonAsked, PromoteAsked, RollbackAsked, ScaleAsked, StopAsked
from stillup.core.model import Fleet, Release
from stillup.core.rollback import previous_release
from stillup.core.states import CALLED_OFF
from stillup.core.strategy_choice import StrategyChoice
from stillup.daemon.control import awaited, event_stream, metrics, responses
from stillup.daemon.control.api import Call, Handler
from stillup.daemon.control.message_trace import Trace, TraceResponse
from stillup.daemon.control.metrics import Scene
from stillup.daemon.control.request_limits import LastingRequests
from stillup.daemon.loop.engine import Engine
from stillup.daemon.loop.reload_request import request_reload
from stillup.daemon.state.custody import Custody
from stillup.daemon.state.disk import Resolved, in_thread
from stillup.daemon.state.figures_store import Figures
from stillup.daemon.state.history import History
from stillup.daemon.state.listener_files import ListenerFiles
from stillup.daemon.state.series_keeper import SeriesKeeper
from stillup.errors import Refused, Unchanged
from stillup.host import own_process
from stillup.wire import api_shapes, fleet_views, outcome_views, protocol_versions
from stillup.wire.address import ActivatedAddress, Bind
from stillup.wire.api_shapes import (
    GenerationView,
    ListenerView,
    RolloutView,
    ScalingView,
    SupervisorView,
    without_output,
)
from stillup.wire.api_version import version
from stillup.wire.crossing_view import QueueView
from stillup.wire.openapi import openapi
from stillup.wire.operations import OPERATIONS


class Handlers:
    """The handlers of one supervisor, by the names of their operations."""

    def __init__(
        self,
        engine: Engine,
        resolve: Callable[[], Awaitable[Resolved]],
        look: Callable[[Release], Awaitable[str]],
        reexec: Callable[[], Awaitable[None]],
        *,
        describe: Callable[[], SupervisorView],
        custody: Custody,
        trace: Trace,
        history: History,
        figures: Figures,
        series: SeriesKeeper,
        listener_files: ListenerFiles,
        hold: Callable[[Sequence[Bind]], AbstractAsyncContextManager[None]] = lambda _: nullcontext(),
        binds: Sequence[Bind] = (),
        cordon_status: int = 503,
    ) -> None:
        """Drive ``engine``.

        Args:
            engine: which owns the fleet.
            resolve: looks at the disk for what a reload is to run.
            look: the fingerprint that a release has on the disk now.
            reexec: replaces the supervisor's program.
            describe: what the supervisor says of itself now.
            custody: has the listeners.
            trace: knows who looks at the messages.
            history: of what has happened.
            figures: have what was counted.
            series: has the figures of the last minutes.
            listener_files: knows whether the listeners' files are there.
            hold: has listeners for what a reload is to run, while that is asked for.
            binds: what is listened on.
            cordon_status: what ``/readyz`` answers with while the service is cordoned.
        """
        self._activated = [bind.address.name for bind in binds if isinstance(bind.address, ActivatedAddress)]
        self._cordon_status = cordon_status
        self._engine = engine
        self._resolve = resolve
        self._look = look
        self._replace = reexec
        self._describe = describe
        self._custody = custody
        self._listener_files = listener_files
        self._hold = hold
        self._trace = trace
        self._history = history
        self._figures = figures
        self._seen_lately = series
        self._document: Mapping[str, object] | None = None
        self._lasting = LastingRequests(Limits(privileged=frozenset({0, os.geteuid()})))
        self.all: Mapping[str, Handler] = {
            "status": self._status,
            "generations": self._generations,
            "workers": self._workers,
            "listeners": self._listeners,
            "history": self._revisions,
            "series": self._series,
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
            "promote": self._promote,
            "scale": self._scale,
            "cordon": partial(self._cordon, on=True),
            "uncordon": partial(self._cordon, on=False),
            "stop": self._stop,
            "trace": self._messages,
            "reexec": self._reexec,
        }

    # Looks

    async def _status(self, call: Call) -> Response:
        view = fleet_views.status(
            self._engine.fleet,
            msgspec.structs.replace(self._describe(), listeners=await self._listeners_seen()),
            QueueView(waiting=self._custody.waiting, capacity=self._custody.capacity),
            awaited.now(),
        )
        return responses.json(view if call.role.covers(Role.OPERATOR) else without_output(view))

    async def _generations(self, call: Call) -> Response:
        return responses.json(self._generation_views(call))

    async def _workers(self, call: Call) -> Response:
        return responses.json([worker for generation in self._generation_views(call) for worker in generation.workers])

    async def _listeners_seen(self) -> list[ListenerView]:
        lost = await self._listener_files.lost()
        return [msgspec.structs.replace(one, trouble=lost.get(one.name, "")) for one in self._describe().listeners]

    async def _listeners(self, _: Call) -> Response:
        return responses.json(await self._listeners_seen())

    async def _revisions(self, _: Call) -> Response:
        return responses.json(outcome_views.history(self._engine.fleet, awaited.now()))

    async def _series(self, _: Call) -> Response:
        return responses.json(self._seen_lately.view())

    async def _rollout(self, call: Call) -> Response:
        return responses.json(self._rollout_view(call, self._engine.fleet, call.values["id"]))

    async def _scaling(self, call: Call) -> Response:
        return responses.json(self._scaling_view(call, self._engine.fleet, call.values["id"]))

    async def _events(self, call: Call) -> Response:
        return event_stream.answer(call, self._history, self._lasting)

    async def _whoami(self, call: Call) -> Response:
        who = call.principal
        view = api_shapes.Whoami(
            uid=who.uid,
            gid=who.gid,
            groups=sorted(who.groups),
            pid=who.pid,
            login_uid=who.login_uid,
            exe=who.exe,
            role=call.role,
            may=[one.name for one in OPERATIONS if call.api_socket in one.sockets and call.role.covers(one.role)],
            unseen=who.unseen,
        )
        return responses.json(view)

    async def _version(self, _: Call) -> Response:
        python = ".".join(str(part) for part in sys.version_info[:3])
        spoken = sorted(protocol_versions.SPOKEN)
        instance = own_process.instance()
        return responses.json(
            api_shapes.Versions(__version__, version(), spoken, python, uvicorn.__version__, instance)
        )

    async def _openapi(self, _: Call) -> Response:
        if self._document is None:  # 40 ms, for which neither a start nor the loop is to wait
            self._document = await in_thread(openapi, __version__)
        return responses.json(self._document)

    async def _metrics(self, call: Call) -> Response:
        totals = await self._figures.totals()
        waiting, capacity = self._custody.waiting, self._custody.capacity
        scene = Scene(self._engine.fleet, totals, waiting, self._describe().reexecs, capacity)
        if not metrics.is_loaded():
            await in_thread(metrics.load)
        content, content_type = metrics.render(scene, call.request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": content_type})

    async def _livez(self, _: Call) -> Response:
        return responses.live()

    async def _readyz(self, _: Call) -> Response:
        return responses.ready(self._engine.fleet, self._cordon_status, await self._listeners_seen())

    async def _messages(self, call: Call) -> Response:
        return TraceResponse(self._trace, self._lasting.one_more(call.principal.uid))

    # Requests

    async def _reload(self, call: Call) -> Response:
        why, force = f"asked by {call.principal}", call.values.get("force", False)
        hurry = call.values.get("hurry", False)
        said = {name: call.values[name] for name in StrategyChoice.__struct_fields__ if name in call.values}
        choice = msgspec.convert(said, StrategyChoice)
        if_changed = call.values.get("if_changed", False)
        ask = partial(request_reload, self._engine, self._resolve, why, choice=choice, hold=self._hold)
        return await self._begun(call, ask(force=force, hurry=hurry, if_changed=if_changed))

    async def _rollback(self, call: Call) -> Response:
        return await self._begun(call, self._go_back(f"rollback asked by {call.principal}", call.values.get("to")))

    async def _go_back(self, why: str, to: int | None) -> Fleet:
        release = previous_release(self._engine.fleet, to)
        found = await self._look(release)
        async with self._listener_files.put_back():
            return await self._engine.ask(RollbackAsked(release, found, why, to))

    async def _begun(self, call: Call, asking: Awaitable[Fleet]) -> Response:
        """Have a rollout begun, and answer; where nothing was to be done, with the one that is at it, or was."""
        try:
            fleet = await asking
        except Unchanged:
            fleet = self._engine.fleet
            return await self._rolled_out(call, fleet, awaited.at_it(fleet), changed=False)
        return await self._rolled_out(call, fleet, fleet.last_rollout)

    async def _promote(self, call: Call) -> Response:
        fleet = await self._engine.ask(PromoteAsked(f"asked by {call.principal}"))
        return await self._rolled_out(call, fleet, awaited.promoted_last(fleet))

    async def _rolled_out(self, call: Call, fleet: Fleet, number: int, *, changed: bool = True) -> Response:
        """Answer a request that has begun a rollout, or has it go on, now or when the caller wants it."""
        wait = call.values.get("wait")
        call.audited.accepted(rollout=number)
        location = f"/v1/rollouts/{number}"
        if wait is None:
            view = msgspec.structs.replace(self._rollout_view(call, fleet, number), changed=changed)
            return responses.json(view, 202 if changed else 200, location)
        fleet = await self._until(
            call, awaited.reached(number, wait), lambda fleet: awaited.probation_left(fleet, number)
        )
        view = msgspec.structs.replace(self._rollout_view(call, fleet, number), changed=changed)
        match view.outcome:
            case "aborted":
                return responses.aborted(view, location)
            case "rolled-back":
                return responses.rolled_back(view, location)
            case _ if wait == "probation" and (view.reason or not view.serves):
                return responses.probation_failed(view, location)
            case _:
                return responses.json(view, 200, location)

    async def _abort(self, call: Call) -> Response:
        fleet = await self._engine.ask(AbortAsked(f"asked by {call.principal}"))
        # Not what was under way when this request came: a reload that came before it may have waited in the queue.
        number = max(rollout.id for rollout in fleet.rollouts if rollout.reason == CALLED_OFF)
        call.audited.accepted(200, rollout=number)
        return responses.json(self._rollout_view(call, fleet, number), 200, f"/v1/rollouts/{number}")

    async def _scale(self, call: Call) -> Response:
        fleet = await self._engine.ask(ScaleAsked(call.values["workers"]))
        number = fleet.last_scaling
        call.audited.accepted(scaling=number)
        location = f"/v1/scalings/{number}"
        if "wait" not in call.values:
            return responses.json(self._scaling_view(call, fleet, number), 202, location)
        fleet = await self._until(call, awaited.scaled(number, call.values["wait"]))
        view = self._scaling_view(call, fleet, number)
        if view.outcome == "aborted":
            return responses.not_scaled(view, location)
        return responses.json(view, 200, location)

    async def _cordon(self, call: Call, *, on: bool) -> Response:
        changed = True
        try:
            await self._engine.ask(CordonAsked(f"asked by {call.principal}", on))
        except Unchanged:
            changed = False
        call.audited.accepted(200)
        return responses.json(api_shapes.Cordoned(on, changed, self._activated))

    async def _stop(self, call: Call) -> Response:
        now = "now" in call.values
        fleet = await self._engine.ask(StopAsked(f"asked by {call.principal}", insist=now, now=now))
        return responses.json(api_shapes.Stopping(fleet.state), 202)

    async def _reexec(self, _: Call) -> Response:
        await self._replace()
        return responses.json(api_shapes.Replacing(self._describe().reexecs), 202)

    async def _until(
        self,
        call: Call,
        holds: Callable[[Fleet], bool],
        until: Callable[[Fleet], float | None] = lambda _: None,
    ) -> Fleet:
        """Wait until something holds of the fleet, unless the caller leaves before it does.

        Args:
            call: whose caller waits.
            holds: what is waited for.
            until: the seconds after which it may hold though the fleet has not changed; None: it will not.

        Raises:
            Refused: the caller has left, and will not read this; or too many of that user wait already.
        """
        with self._lasting.one_more(call.principal.uid):
            while not holds(fleet := await self._until_or_left(call, holds, until)):
                pass
            return fleet

    async def _until_or_left(
        self, call: Call, holds: Callable[[Fleet], bool], until: Callable[[Fleet], float | None]
    ) -> Fleet:
        """As ``_until``, or the fleet as it is when the time has come to look again."""
        seconds = until(self._engine.fleet)

        def moved(fleet: Fleet) -> bool:
            return holds(fleet) or (seconds is None) != (until(fleet) is None)

        waiting = asyncio.ensure_future(self._engine.until(moved))
        # The whole request has been read (``request_limits``): nothing can come but the client's end.
        leaving = asyncio.ensure_future(call.request.receive())
        try:
            await asyncio.wait({waiting, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() and not waiting.done():
                raise Refused("the caller has left", code="unavailable")
            return waiting.result() if waiting.done() else self._engine.fleet
        finally:
            waiting.cancel()
            leaving.cancel()

    # Rendering

    def _generation_views(self, call: Call) -> list[GenerationView]:
        seen = fleet_views.generations(self._engine.fleet, awaited.now())
        return seen if call.role.covers(Role.OPERATOR) else [without_output(generation) for generation in seen]

    def _rollout_view(self, call: Call, fleet: Fleet, number: int) -> RolloutView:
        rollout = fleet.rollout(number)
        if rollout is None:
            raise Refused(f"rollout {number} is not known, or was forgotten", code="not-found")
        view = fleet_views.rollout(fleet, rollout, awaited.now())
        return view if call.role.covers(Role.OPERATOR) else without_output(view)

    def _scaling_view(self, call: Call, fleet: Fleet, number: int) -> ScalingView:
        scaling = fleet.scaling(number)
        if scaling is None:
            raise Refused(f"scaling {number} is not known, or was forgotten", code="not-found")
        view = fleet_views.scaling(fleet, scaling, awaited.now())
        return view if call.role.covers(Role.OPERATOR) else without_output(view)
