"""The shapes of the control API cross the socket, and leave out what is not for everybody."""

from __future__ import annotations

import msgspec

from stillup.core.events import (
    BecameReady,
    BeganServing,
    Exited,
    HelloSaid,
    ReloadAsked,
    Reported,
    Spawned,
    WorkerBootFailed,
)
from stillup.core.model import Fleet
from stillup.core.policy import Policy
from stillup.core.worker_figures import WorkerFigures
from stillup.wire.api_shapes import (
    Problem,
    Status,
    without_output,
)
from stillup.wire.problem_types import PROBLEM, URN
from tests.wire.example_fleets import (
    BOOTING,
    OLD,
    SCALING,
    aborted,
    after,
    booting,
    crashed,
    draining,
    look,
)


def test_a_status_crosses_the_socket() -> None:
    """What the supervisor shows is what a client reads."""
    for fleet in (Fleet(), booting(), draining(), aborted(), crashed()):
        shown = look(fleet, 20.0)
        assert msgspec.json.decode(msgspec.json.encode(shown), type=Status) == shown


def test_a_problem_says_what_it_is() -> None:
    """A problem has the media type of RFC 9457, by which a client knows it from an answer."""
    assert PROBLEM == "application/problem+json"


def test_a_problem_leaves_out_what_it_does_not_have() -> None:
    """A problem document has a rollout or a scaling only when it is about one."""
    problem = Problem(f"{URN}usage", "usage", 400, "no")
    assert msgspec.to_builtins(problem) == {
        "type": "urn:stillup:problem:usage",
        "title": "usage",
        "status": 400,
        "detail": "no",
    }
    about = Problem(f"{URN}superseded", "superseded", 409, "no", BOOTING)
    assert msgspec.json.decode(msgspec.json.encode(about), type=Problem) == about
    about = Problem(f"{URN}superseded", "superseded", 409, "no", scaling=SCALING)
    assert msgspec.json.decode(msgspec.json.encode(about), type=Problem) == about


def test_what_a_failed_worker_wrote_can_be_left_out() -> None:
    """The rollout and the status without it, and without what the app said of its failure, say the same otherwise."""
    failed = after(
        Fleet(policy=Policy()),
        (0.0, ReloadAsked(OLD, "start")),
        (0.1, Spawned(1, 7)),
        (0.2, HelloSaid(1)),
        (0.3, WorkerBootFailed(1, "import", "no secrets://db")),
        (0.4, Exited(1, "exited 1", "secrets")),
    )
    whole = look(failed, 1.0)
    assert whole.rollout is not None
    assert whole.rollout.failure is not None
    assert whole.rollout.failure.output == "secrets"
    bare = without_output(whole)
    assert "secrets" not in msgspec.json.encode(bare).decode()
    assert bare.rollout is not None
    assert bare.rollout.failure == msgspec.structs.replace(whole.rollout.failure, message="", output="")
    quiet = look(Fleet(), 1.0)
    assert without_output(quiet) == quiet


def test_what_an_app_says_of_its_threads_can_be_left_out() -> None:
    """Their names are the app's words: of a worker, in the status and apart from it, all else is said."""
    fleet = after(
        Fleet(policy=Policy()),
        (0.0, ReloadAsked(OLD, "start")),
        (0.1, Spawned(1, 7)),
        (0.2, HelloSaid(1)),
        (0.3, BecameReady(1)),
        (0.4, BeganServing(1)),
        (0.5, Reported(1, WorkerFigures({"idle": 3}, 5, threads="secret"))),
    )
    whole = look(fleet, 1.0)
    (generation,) = whole.generations
    (worker,) = generation.workers
    bare = msgspec.structs.replace(worker, threads="")
    assert worker.threads == "secret"
    assert without_output(worker) == bare
    assert without_output(generation) == msgspec.structs.replace(generation, workers=[bare])
    assert b"secret" not in msgspec.json.encode(without_output(whole))
