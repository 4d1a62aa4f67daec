"""What of a fleet is written down, and what is not: silence, and the way back."""

from __future__ import annotations

from stillup.core.events import Exited, HeartbeatsDue, ReloadAsked, Reported, SpawnFailed
from stillup.core.model import Fleet, Release, Rollout
from stillup.core.step import step
from stillup.core.values import replace
from stillup.core.worker_figures import WorkerFigures
from stillup.core.worker_settings import WorkerSettings
from stillup.wire.record_format import lasting
from tests.wire.example_fleets import NEW, after, draining, serving

BARE = replace(NEW, environment={}, options={}, settings=WorkerSettings(), whole=False)
FULL = replace(NEW, environment={"A": "1"}, options={"http": "h11"})


def test_a_beat_is_not_written_down() -> None:
    """A fleet in which somebody was heard is the same to the record: nothing is written once a second."""
    before = serving()
    fleet = after(
        before,
        (3.0, Reported(1, WorkerFigures({"idle": 1}, 7))),
        (3.5, HeartbeatsDue(3.5)),
        (4.0, HeartbeatsDue(4.0, late=True)),
    )
    assert fleet != before
    assert lasting(fleet) == lasting(before)


def test_who_hangs_is_written_down_as_worn() -> None:
    """The next supervisor has it replaced, and has to find out for itself whether it hangs."""
    fleet = after(serving(), (60.0, Reported(2)), (63.0, HeartbeatsDue(63.0)))
    assert fleet.workers[1].hung is not None
    written = lasting(fleet).workers[1]
    assert (written.hung, written.heard) == (None, None)
    assert written.recycle.endswith("(--hang-timeout)")


def rejected(fleet: Fleet, times: int) -> Fleet:
    """So many reloads of a release that does not boot."""
    for _ in range(times):
        fleet = after(fleet, (20.0, ReloadAsked(FULL, "again")))
        fleet = step(fleet, SpawnFailed(fleet.last_worker, "no"), 20.0).fleet
        for serial in [w.serial for w in fleet.workers.values() if w.generation == fleet.last_generation]:
            fleet = step(fleet, Exited(serial, "exited 1"), 20.0).fleet
    return fleet


def known(fleet: Fleet, number: int) -> Rollout:
    rollout = fleet.rollout(number)
    assert rollout is not None
    return rollout


def test_the_way_back_is_written_down() -> None:
    """However many rollouts have failed since, what the one that serves replaced is kept whole; of others a name."""
    fleet = rejected(draining(), 4)
    written = lasting(fleet)
    assert known(written, 2).replaced == known(fleet, 2).replaced
    assert known(written, 2).release == known(fleet, 2).release
    assert known(written, 3).release == BARE
    assert known(written, 3).previous_release == "srv/new"
    assert known(written, 6).release == FULL
    assert known(written, 1).replaced is None


def test_a_name_is_no_release() -> None:
    """What is left of an old release says who it was, and not with which secrets it ran."""
    fleet = rejected(rejected(draining(), 1), 4)
    replaced = known(lasting(fleet), 3).replaced
    assert replaced == Release(NEW.app, NEW.python, NEW.directory, label=NEW.label, whole=False)
