"""Canary rollouts under load: a release that is good comes, one that is not leaves, and nobody else notices.

Nobody loses anything but what a killed worker held, whatever comes in the way of a watch; what the app itself answers
with 500 is counted apart.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from stillup.client import ProblemError
from stillup.wire.api_shapes import RolloutView
from tests.system import mutations
from tests.system.canary.canary_load import FRESH, KEPT, CanaryLoad
from tests.system.harness import FULL, ROOT, eventually
from tests.system.killable_service import KillableService
from tests.system.mutations import Mutation, mutated

WORKERS = 2
pytestmark = pytest.mark.xdist_group("canary")
in_full = pytest.mark.skipif(not FULL, reason="in 'make prove' (PROVE=full)")
LONG: dict[str, Any] = {"canary_time": 600.0, "canary_timeout": 900.0}
"""A watch that does not end by itself in a test's time."""


class CanaryService(KillableService):
    """One with two workers, whose reloads begin with one beside them."""

    tracebacks_expected = True

    def __init__(self, folder: Path, path: str = "") -> None:
        """Have it in a folder; ``path`` leads to another stillup than this one."""
        canary = ["--strategy", "canary", "--canary-time", "3", "--canary-timeout", "60", "--min-requests", "60"]
        canary += ["--health-path", "/healthz", "--boot-timeout", "10"]
        super().__init__(
            folder,
            "--app-dir",
            str(ROOT),
            *canary,
            app="tests.system.canary.canary_app:app",
            path=path,
            workers=WORKERS,
        )

    def at_rest(self) -> int:
        """Wait until one generation serves alone, with as many workers as it should; its number."""
        for pattern in ("errors-*", "slow-*", "crash-*", "broken-*", "sick-*"):
            for file in self.folder.glob(pattern):
                file.unlink()

        def quiet() -> bool:
            generations = self.status().generations
            states = [worker.state for worker in generations[0].workers]
            return len(generations) == 1 and states == ["serving"] * WORKERS

        eventually(quiet, "one generation serves alone")
        return self.generations()[0]

    def begin(self, **words: Any) -> int:
        """Begin a reload, and wait until its canary is watched; the number of the rollout."""
        number = self.client.reload(**words).id
        self.until_watched(number)
        return number

    def until_watched(self, number: int) -> None:
        eventually(lambda: self.client.rollout(number).state == "watching", f"rollout {number} is watched")

    def mark(self, what: str, generation: int) -> None:
        (self.folder / f"{what}-{generation}").touch()

    def pid_of(self, worker: str) -> int:
        return self.pids()[worker]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CanaryService]:
    """One service for all tests: each leaves one generation of it."""
    with CanaryService(tmp_path_factory.mktemp("canary")) as service:
        yield service


@pytest.fixture
def busy(how: str) -> Iterator[None]:
    """Neighbours who leave no processor idle, beside what is healthy."""
    neighbours = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1)
        if how == "healthy"
    ]
    yield
    for neighbour in neighbours:
        neighbour.kill()
        neighbour.wait()


@in_full
@pytest.mark.parametrize(
    ("change", "bad"),
    [
        pytest.param(mutations.PASSES_WHATEVER, True, id="passes-whatever"),
        pytest.param(mutations.GIVES_NO_SHARE, False, id="gives-no-share"),
    ],
)
def test_a_gate_that_cannot_tell(tmp_path: Path, change: Mutation, bad: bool) -> None:
    """Without the gate a bad release is not found out in time; without its share no good one comes."""
    path = mutated(tmp_path, change)["PYTHONPATH"]
    with CanaryService(tmp_path, path) as service, CanaryLoad(service.address(), fresh=FRESH if bad else 0):
        if bad:
            service.mark("errors", 2)
        rollout = service.settled(service.begin(canary_timeout=10.0))
        assert rollout.reason == "inconclusive", rollout.watch


class Trial:
    """One rollout under load."""

    def __init__(self, service: CanaryService, load: CanaryLoad, old: int) -> None:
        self.service = service
        self.load = load
        self.old = old
        self.may_fail = 0
        """How many connections may end: those that a killed worker held at most."""
        latest = service.status().rollout
        assert latest is not None
        assert latest.generation is not None
        self.new = latest.generation + 1

    def settled(self, number: int, outcome: str, reason: str = "") -> RolloutView:
        rollout = self.service.settled(number)
        assert (rollout.outcome, rollout.reason) == (outcome, reason), f"{rollout}\n{self.service.log()[-4000:]}"
        return rollout

    def stays(self, generation: int) -> None:
        """See that this generation alone is there in the end, and every client at it."""
        eventually(lambda: self.service.generations() == [generation], f"gen {generation} alone")
        self.load.moves_to(generation)


@contextmanager
def trial(service: CanaryService) -> Iterator[Trial]:
    """Begin at rest, and demand at the end that nothing failed but what a killed worker held."""
    old = service.at_rest()
    with CanaryLoad(service.address()) as load:
        one = Trial(service, load, old)
        yield one
    print(f"{load.answers.total()} requests, {len(load.failures)} failed or closed, 5xx {dict(load.errors)}")
    assert len(load.failures) <= one.may_fail, load.failures[:5]


def test_a_good_release(service: CanaryService) -> None:
    """It passes by its figures, got about its share of the requests, and every connection is at it in the end."""
    with trial(service) as one:
        number = service.begin()
        rollout = one.settled(number, "succeeded")
        assert rollout.watch is not None
        assert rollout.watch.verdict == "pass", rollout.watch
        assert rollout.watch.old is not None
        assert rollout.watch.new is not None
        assert min(rollout.watch.old.requests, rollout.watch.new.requests) >= 60
        assert (rollout.watch.old.errors, rollout.watch.new.errors) == (0, 0)
        one.stays(one.new)


def test_errors(service: CanaryService) -> None:
    """10 % of 5xx: it leaves in its bake, with no more requests affected than that part of its own; by the command."""
    with trial(service) as one:
        service.mark("errors", one.new)
        said = service.cli("reload", "--canary-time", "30")
        assert said.returncode == 1, said.stderr
        assert "5xx" in said.stdout
        assert f"no  gen {one.new} rejected (gate). gen {one.old} never stopped serving." in said.stdout
        one.stays(one.old)
        assert set(one.load.errors) - {one.new} <= {one.old}
        assert one.load.errors[one.old] == 0
        assert 0 < one.load.errors[one.new] <= one.load.answers[one.new] / 10 + 1
        assert one.load.answers[one.new] < one.load.answers[one.old]


@in_full
@pytest.mark.parametrize(("how", "reason"), [("broken", "import"), ("sick", "probe")])
def test_a_release_that_does_not_boot(service: CanaryService, how: str, reason: str) -> None:
    """It gets no request, and the old serve on."""
    with trial(service) as one:
        service.mark(how, one.new)
        one.settled(service.client.reload().id, "aborted", reason)
        one.stays(one.old)
        assert one.load.answers[one.new] == 0


@in_full
def test_slowness(service: CanaryService) -> None:
    """Answers that take much longer than those of the old: it leaves."""
    with trial(service) as one:
        service.mark("slow", one.new)
        rollout = one.settled(service.begin(canary_time=30.0, min_requests=10), "aborted", "gate")
        assert rollout.watch is not None
        assert rollout.watch.reason == "latency"
        one.stays(one.old)


@in_full
def test_a_crash(service: CanaryService) -> None:
    """A canary that dies in its watch is no canary: what it held is lost, and it leaves."""
    with trial(service) as one:
        one.may_fail = KEPT + FRESH
        number = service.begin(**LONG)
        service.mark("crash", one.new)
        one.settled(number, "aborted", "exit")
        one.stays(one.old)


@in_full
def test_inconclusive(service: CanaryService) -> None:
    """With too few requests it is held, says so, and leaves when the time is over."""
    with trial(service) as one:
        words = ["--canary-time", "1", "--canary-timeout", "4", "--min-requests", "1000000"]
        said = service.cli("reload", *words)
        assert said.returncode == 1, said.stderr
        assert "of 1000000 requests; promote, abort, or goes back in" in said.stdout
        assert f"gen {one.new} rejected (inconclusive)" in said.stdout
        one.stays(one.old)


def test_promotion(service: CanaryService) -> None:
    """Somebody passes it by hand, whatever is known of it; only while it is watched."""
    with trial(service) as one:
        with pytest.raises(ProblemError, match="no canary is watched"):
            service.client.promote()
        number = service.begin(**LONG)
        assert "/2 on gen" in service.cli("status").stdout
        said = service.cli("promote")
        assert said.returncode == 0, said.stderr
        assert f"gen {one.new} serving" in said.stdout
        rollout = one.settled(number, "succeeded")
        assert rollout.watch is not None
        assert rollout.watch.verdict == "promoted"
        one.stays(one.new)


@in_full
def test_an_abort(service: CanaryService) -> None:
    """It leaves, and what served before serves as if nothing had been."""
    with trial(service) as one:
        number = service.begin(**LONG)
        service.client.abort()
        one.settled(number, "aborted", "called-off")
        one.stays(one.old)


@in_full
def test_another_reload(service: CanaryService) -> None:
    """It supersedes the first, whose canary leaves before that of the second comes."""
    with trial(service) as one:
        number = service.begin(**LONG)
        second = service.client.reload().id
        one.settled(number, "aborted", "superseded")
        one.settled(second, "succeeded")
        one.stays(one.new + 1)


@in_full
def test_a_scaling(service: CanaryService) -> None:
    """More workers of what serves come beside a watched canary, and as many of the new one after it."""
    with trial(service) as one:
        number = service.begin(**LONG)
        assert service.client.scale(WORKERS + 1, wait=True).outcome == "succeeded"
        assert service.client.rollout(number).state == "watching"
        service.client.promote()
        one.settled(number, "succeeded")
        one.stays(one.new)
        service.client.scale(WORKERS, wait="drained")


def test_the_program_is_replaced(service: CanaryService) -> None:
    """In the middle of a watch: the next one goes on with it, and it is as old as it was."""
    with trial(service) as one:
        number = service.begin(**LONG)  # else it might pass before the trial of the new program is over
        before = service.client.rollout(number).watch
        times = service.status().reexecs
        service.client.reexec()
        service.reexecuted(times + 1)
        rollout = service.client.rollout(number)
        assert rollout.state == "watching"
        assert rollout.watch is not None
        assert before is not None
        assert (rollout.watch.watched_for or 0) > (before.watched_for or 0)
        service.client.promote()
        one.settled(number, "succeeded")
        one.stays(one.new)


@in_full
def test_the_supervisor_is_killed(service: CanaryService) -> None:
    """In the middle of a watch: the next one goes on with it, and passes the release by its figures."""
    with trial(service) as one:
        number = service.begin(canary_time=20.0)
        service.die()
        service.start()
        rollout = one.settled(number, "succeeded")
        assert rollout.watch is not None
        assert rollout.watch.verdict == "pass", rollout.watch
        one.stays(one.new)


@in_full
@pytest.mark.parametrize("side", ["old", "new"])
def test_a_worker_is_killed(service: CanaryService, side: str) -> None:
    """An old one is replaced by an old one, and the watch goes on; with one of the canary's the canary has failed."""
    with trial(service) as one:
        one.may_fail = KEPT + FRESH
        number = service.begin(**LONG)
        killed = service.pid_of(f"{one.old if side == 'old' else one.new}.1")
        psutil.Process(killed).kill()
        if side == "new":
            one.settled(number, "aborted", "exit")
            one.stays(one.old)
            return
        eventually(
            lambda: len(service.workers()) == WORKERS + 1 and killed not in service.pids().values(), "it is back"
        )
        assert service.client.rollout(number).state == "watching"
        service.client.promote()
        one.settled(number, "succeeded")
        one.stays(one.new)


@in_full
@pytest.mark.parametrize("attempt", range(20))
@pytest.mark.parametrize(("how", "outcome"), [("errors", "aborted"), ("healthy", "succeeded")])
def test_again_and_again(service: CanaryService, how: str, outcome: str, attempt: int, busy: None) -> None:
    """Twenty bad ones leave, and twenty good ones beside noisy neighbours come; nobody loses anything."""
    with trial(service) as one:
        if how == "errors":
            service.mark("errors", one.new)
        one.settled(service.begin(), outcome, "gate" if how == "errors" else "")
        one.stays(one.new if outcome == "succeeded" else one.old)
