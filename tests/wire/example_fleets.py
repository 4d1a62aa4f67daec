"""Fleets in each phase of a reload, and how each is shown: the same story, second by second."""

from __future__ import annotations

from stillup.core.events import (
    BecameReady,
    BeganServing,
    Event,
    Exited,
    HelloSaid,
    ReloadAsked,
    Reported,
    ScaleAsked,
    Spawned,
    WorkerBootFailed,
)
from stillup.core.listener_key import ListenerKey
from stillup.core.model import Fleet, Release
from stillup.core.policy import Policy
from stillup.core.step import step
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from stillup.core.worker_settings import WorkerSettings
from stillup.wire.api_shapes import (
    RolloutView,
    ScalingView,
    Status,
    SupervisorView,
)
from stillup.wire.crossing_view import QueueView
from stillup.wire.fleet_views import listeners, rollout, scaling, status
from stillup.wire.handoff_messages import ListenerInfo

OLD = Release(
    app="app:app",
    python="/usr/bin/python3",
    directory="/srv/old",
    label="srv/old",
    settings=WorkerSettings(health_path="/"),
)
NEW = replace(OLD, directory="/srv/new", label="srv/new")
KEYS = (ListenerKey("web", "127.0.0.1:8000"), ListenerKey("admin", "unix:/run/admin.sock"))
LISTENERS = (ListenerInfo("web", 2, "127.0.0.1:8000"), ListenerInfo("admin", 1, "unix:/run/admin.sock"))
SUPERVISOR = SupervisorView(
    name="shop", version="1.0", pid=42, reexecs=7, listeners=listeners(Fleet(), KEYS, LISTENERS)
)


def after(fleet: Fleet, *events: tuple[float, Event]) -> Fleet:
    """What the fleet becomes when these happen at these times."""
    for now, event in events:
        fleet = step(fleet, event, now).fleet
    return fleet


def come(serial: int, now: float) -> list[tuple[float, Event]]:
    """A worker's way to READY."""
    return [(now, Spawned(serial, 100 + serial)), (now, HelloSaid(serial)), (now, BecameReady(serial, "/ 200"))]


def serving() -> Fleet:
    """Two workers of generation 1 serve since second 2."""
    fleet = after(Fleet(size=2, policy=Policy(drain_timeout=30.0)), (0.0, ReloadAsked(OLD, "first")))
    return after(fleet, *come(1, 1.0), *come(2, 1.0), (2.0, BeganServing(1)), (2.0, BeganServing(2)))


def booting() -> Fleet:
    """A reload was asked for at second 10, and one of its two workers is READY."""
    return after(serving(), (10.0, ReloadAsked(NEW, "asked by uid 0, pid 7")), *come(3, 11.0))


def cutting_over() -> Fleet:
    """Both are READY since second 12; one of them serves."""
    return after(booting(), *come(4, 12.0), (12.5, BeganServing(3)))


def draining() -> Fleet:
    """Both serve since second 13; the old ones still have clients."""
    return after(
        cutting_over(),
        (13.0, BeganServing(4)),
        (14.0, Reported(1, WorkerFigures({"in-progress": 2, "stream": 1, "background": 4}, 50))),
        (14.0, Reported(2, WorkerFigures({"in-progress": 1}, 60))),
    )


def aborted() -> Fleet:
    """The second new worker could not import the app, and was gone at second 12."""
    return after(
        booting(),
        (10.5, Spawned(4, 104)),
        (11.0, HelloSaid(4)),
        (11.0, WorkerBootFailed(4, "import", "no module named app")),
        (12.0, Exited(4, "exited 1", "Traceback")),
    )


def crashed() -> Fleet:
    """Both workers of generation 2 died within 3 seconds of its cut-over."""
    return after(draining(), (15.0, Exited(3, "exited 1", "last words")), (16.0, Exited(4, "exited 7", "more")))


def scaling_up() -> Fleet:
    """At second 10 a third worker was asked for."""
    return after(serving(), (10.0, ScaleAsked(3)))


def show(fleet: Fleet, number: int, now: float) -> RolloutView:
    known = fleet.rollout(number)
    assert known is not None
    return rollout(fleet, known, now)


def look(fleet: Fleet, now: float) -> Status:
    return status(fleet, SUPERVISOR, QueueView(waiting=3, capacity=278), now)


def show_scaling(fleet: Fleet, now: float) -> ScalingView:
    known = fleet.scaling(1)
    assert known is not None
    return scaling(fleet, known, now)


BOOTING = RolloutView(
    id=2,
    state="booting",
    outcome=None,
    why="asked by uid 0, pid 7",
    generation=2,
    previous=1,
    release="srv/new",
    previous_release="srv/old",
    workers_wanted=2,
    workers_ready=1,
    probe="",
    booting_for=1.5,
    cut_over_took=None,
    total=1.5,
    reason="",
    failure=None,
    drains={},
    drain_left=None,
)
"""The reload of ``booting`` as it is shown at second 11.5."""
SCALING = ScalingView(
    id=1,
    state="under-way",
    outcome=None,
    workers_wanted=3,
    workers_before=2,
    workers_serving=2,
    workers_leaving=0,
    total=2.0,
    reason="",
    failure=None,
)
"""The request of ``scaling_up`` as it is shown at second 12."""
