"""Of all workers of all generations at most one leads, and one does; a lock outside stillup knows."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from stillup.wire.api_shapes import WorkerView
from stillup.wire.worker_event_types import LeaderKilled, LeaderTold
from tests.system.harness import FULL, ROOT, Service, eventually
from tests.system.killable_service import KillableService
from tests.system.mutations import TOLD_TOO_SOON, WITHOUT_LOCK, mutated

APP = ("tests.system.leading_app:app", "--app-dir", str(ROOT), "--no-access-log")
RELOADS = 200 if FULL else 5
KILLS = 20 if FULL else 3
GAP = 2.0 if FULL else 15.0
"""Seconds in which nobody leads, at most, from the let-go or the death of who did; more beside other tests."""

pytestmark = pytest.mark.timeout(900)


class Leading:
    """What the workers of a service have written of leading."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "leads"

    def lines(self) -> list[tuple[float, str, str, int]]:
        """When, what, who and its pid."""
        text = self._file.read_text() if self._file.exists() else ""
        words = [line.split() for line in text.splitlines()]
        return [(float(at), what, who, int(pid)) for at, what, who, pid in words]

    def leader(self) -> int:
        """The pid of who leads; 0 if nobody does."""
        turns = [(what, pid) for _, what, _, pid in self.lines() if what in ("begins", "ends")]
        return turns[-1][1] if turns and turns[-1][0] == "begins" else 0

    def until_other(self, than: int = 0) -> int:
        """Wait until another process leads; its pid."""
        return eventually(lambda: (pid := self.leader()) != than and pid, f"another leads than {than}: {self.lines()}")

    def until_begun(self, times: int) -> None:
        """Wait until it began so often: the service is told so a moment before the app goes on."""
        eventually(lambda: [what for _, what, _, _ in self.lines()].count("begins") >= times, f"{times} have begun")

    def check(self, died: dict[int, float]) -> int:
        """Never two, never none for long; how often it began. ``died``: when those were killed that were."""
        ended: float | None = None
        leader, turns = 0, 0
        for at, what, who, pid in self.lines():
            assert what != "two", f"{who} led beside another"
            if what == "begins":
                assert leader in (0, *died), f"pid {leader} leads still"
                ended = died[leader] if leader else ended
                assert ended is None or at - ended < GAP, f"{who} led {at - ended:.1f} s after the one before"
                leader, turns = pid, turns + 1
            elif what == "ends":
                assert pid == leader
                leader, ended = 0, at
        return turns


def leaders(service: Service) -> list[WorkerView]:
    """Who leads, by the service's word."""
    return [w for g in service.status().generations for w in g.workers if w.leader]


def leads(service: Service, pid: int) -> bool:
    """Whether that worker leads alone."""
    return [worker.pid for worker in leaders(service)] == [pid]


def leads_alone(service: Service, generation: int) -> bool:
    """Whether one worker of that generation leads, and nobody else."""
    return [worker.id.partition(".")[0] for worker in leaders(service)] == [str(generation)]


def both_want(service: Service) -> bool:
    """Whether two workers serve, and have said that they want to lead."""
    return sum(worker.leadership.wants for worker in service.workers()) == 2


def told(service: Service) -> list[LeaderTold | LeaderKilled]:
    """What the history has of leading."""
    with closing(service.client.events()) as events:
        return [event for event in events if isinstance(event, LeaderTold | LeaderKilled)]


@pytest.fixture
def killed() -> dict[int, float]:
    """By pid, when who led was killed."""
    return {}


def kill(pid: int, killed: dict[int, float]) -> None:
    killed[pid] = time.monotonic()
    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Two workers that want to lead, and have time to let go."""
    with Service(tmp_path, *APP, workers=2) as service:
        yield service


def test_leadership_moves_with_each_reload(service: Service, tmp_path: Path) -> None:
    """At the cut-over one of the new generation leads, once who led before has let go."""
    leading = Leading(tmp_path)
    for generation in range(1, RELOADS + 2):
        if generation > 1:
            service.client.reload(wait="cut-over")
        eventually(partial(leads_alone, service, generation), f"one of gen {generation} leads")
        leading.until_begun(generation)
    turns = [who.partition(".")[0] for _, what, who, _ in leading.lines() if what == "begins"]
    assert turns == [str(number) for number in range(1, RELOADS + 2)]
    assert leading.check({}) == RELOADS + 1


def test_a_leader_is_killed(service: Service, tmp_path: Path, killed: dict[int, float]) -> None:
    """Another leads within two seconds, and the service says who."""
    leading = Leading(tmp_path)
    for _ in range(KILLS):
        leader = leading.until_other(next(reversed(killed), 0))
        eventually(partial(leads, service, leader), "the service says who leads")
        eventually(lambda: both_want(service), "another could lead")
        kill(leader, killed)
    leading.until_other(next(reversed(killed)))
    assert leading.check(killed) == KILLS + 1
    eventually(lambda: ", leads" in service.cli("status").stdout, "so does the status")


def test_the_supervisor_is_killed(tmp_path: Path, killed: dict[int, float]) -> None:
    """Who leads does so on, without one and with the next; that one gives it a lock of its own, and passes it on."""
    leading = Leading(tmp_path)
    app = "tests.system.leading_app:app"
    with KillableService(tmp_path, "--app-dir", str(ROOT), app=app, workers=2) as service:
        for number in range(KILLS):
            leader = leading.until_other(next(reversed(killed), 0))
            eventually(lambda: both_want(service), "another could lead")
            service.die()
            service.start()
            eventually(lambda: both_want(service), "both are back")
            assert leads(service, leader), "it leads on"
            if number % 5 == 2:  # who dies young again and again is started later each time
                kill(leader, killed)
        leading.until_other(next(reversed(killed)))
        service.reload()
        eventually(partial(leads_alone, service, 2), "the new generation leads")
        leading.until_begun(len(killed) + 2)
    assert leading.check(killed) == len(killed) + 2


def test_a_leader_dies_with_its_supervisor(tmp_path: Path, killed: dict[int, float]) -> None:
    """The next supervisor has another lead."""
    leading = Leading(tmp_path)
    app = "tests.system.leading_app:app"
    with KillableService(tmp_path, "--app-dir", str(ROOT), app=app, workers=2) as service:
        leader = leading.until_other()
        service.die()
        kill(leader, killed)
        service.start()
        other = leading.until_other(leader)
        assert other in service.pids().values()
    assert len([what for _, what, _, _ in leading.lines() if what == "begins"]) == 2


def test_the_program_is_replaced(service: Service, tmp_path: Path) -> None:
    """Who leads does so on, under the new program as well."""
    leading = Leading(tmp_path)
    leader = leading.until_other()
    assert service.cli("supervisor", "reexec").returncode == 0
    eventually(partial(leads, service, leader), "it leads on")
    service.reload()
    eventually(partial(leads_alone, service, 2), "the new generation leads")
    leading.until_begun(2)
    assert leading.check({}) == 2


def test_one_that_never_lets_go_is_killed(tmp_path: Path) -> None:
    """After --leader-timeout, so that another can lead; an event says so."""
    leading = Leading(tmp_path)
    with Service(tmp_path, *APP, "--leader-timeout", "1", workers=2) as service:
        leader = leading.until_other()
        (tmp_path / "hold").touch()
        service.reload()
        other = leading.until_other(leader)
        (tmp_path / "hold").unlink()
        happened = eventually(lambda: seen if len(seen := told(service)) >= 3 else None, "it is told")
        assert [type(event) for event in happened] == [LeaderTold, LeaderKilled, LeaderTold]
        assert other in {worker.pid for worker in service.workers()}
    since = next(at for at, what, _, pid in leading.lines() if (what, pid) == ("told", leader))
    begins = next(at for at, what, _, pid in leading.lines() if (what, pid) == ("begins", other))
    assert begins - since < 1.0 + GAP


def test_one_that_lets_go_unasked_makes_room(service: Service, tmp_path: Path) -> None:
    """The other worker leads then, and the history has no word of it: an app may do so again and again."""
    leading = Leading(tmp_path)
    leader = leading.until_other()
    for _ in range(3):
        (tmp_path / "give-up").touch()
        leader = leading.until_other(leader)
    assert leading.check({}) == 4
    assert len({pid for _, _, _, pid in leading.lines()}) == 2, "in turn"
    assert [type(event) for event in told(service)] == [LeaderTold]


def test_a_child_of_a_leader_has_no_lock(service: Service, tmp_path: Path, killed: dict[int, float]) -> None:
    """It lives on when the leader has died, and closes what it has: another leads."""
    (tmp_path / "fork").touch()
    (tmp_path / "child").touch()
    leading = Leading(tmp_path)
    first = leading.until_other()
    (tmp_path / "give-up").touch()
    leader = leading.until_other(first)
    name = next(who for _, _, who, pid in leading.lines() if pid == leader)
    eventually(lambda: any((what, who) == ("forked", name) for _, what, who, _ in leading.lines()), "it has a child")
    (tmp_path / "fork").unlink()
    kill(leader, killed)
    leading.until_other(leader)
    (tmp_path / "child").unlink()
    assert leading.check(killed) == 3


LIAR = """
from stillup.worker.supervisor_channel import SupervisorChannel
SupervisorChannel.give_up_lock = lambda self: None
from tests.system.leading_app import app
"""


def test_a_leader_lies_of_having_let_go(tmp_path: Path) -> None:
    """Whoever keeps the lock is killed by the kernel's word, though it serves; another leads."""
    leading = Leading(tmp_path)
    service = Service(tmp_path, "main:app", "--no-access-log", workers=2, environment={"PYTHONPATH": str(ROOT)})
    service.write(LIAR)
    with service:
        leader = leading.until_other()
        (tmp_path / "give-up").touch()
        leading.until_other(leader)
        eventually(lambda: leader not in {w.pid for w in service.workers()}, "it is killed")
        (liar,) = eventually(lambda: [one for one in told(service) if isinstance(one, LeaderKilled)], "it is told")
        assert liar.seconds is None
        eventually(lambda: len(service.workers()) == 2, "its slot is filled again")
    assert not [line for line in leading.lines() if line[1] == "two"]


def test_a_check_does_not_lead(service: Service, tmp_path: Path) -> None:
    """``stillup check`` starts the app beside the service that runs, and it waits to lead for ever."""
    leading = Leading(tmp_path)
    leading.until_other()
    done = service.cli("check", "tests.system.leading_app:app", "--app-dir", str(ROOT), "--health-path", "/")
    assert done.returncode == 0, done
    assert [what for _, what, _, _ in leading.lines()] == ["begins"]


def test_a_leader_on_no_record(tmp_path: Path) -> None:
    """It says that it leads when it comes back, and passes it on to the generation that is rolled out then."""
    leading = Leading(tmp_path)
    app = "tests.system.leading_app:app"
    with KillableService(tmp_path, "--app-dir", str(ROOT), app=app, workers=2) as service:
        leader = leading.until_other()
        service.die()
        service.record().unlink()
        service.start()
        eventually(partial(leads_alone, service, 2), "the new generation leads")
        assert leading.until_other(leader) in service.pids().values()
    assert leading.check({}) == 2


@pytest.mark.parametrize("locked", [True, False])
def test_the_lock_is_worth_something(tmp_path: Path, *, locked: bool) -> None:
    """Were the next one told too soon, the kernel's lock would still keep it from leading; without it two would lead.

    So these tests can fail. The one that leads on is killed, since it holds the lock and is not to lead by then.
    """
    leading = Leading(tmp_path)
    mutations = [TOLD_TOO_SOON] if locked else [TOLD_TOO_SOON, WITHOUT_LOCK]
    environment = mutated(tmp_path, *mutations)
    with Service(tmp_path, *APP, "--probation", "0", workers=2, environment=environment) as service:
        leader = leading.until_other()
        (tmp_path / "hold").touch()
        service.reload()
        if locked:
            leading.until_other(leader)  # whom the kernel lets, maybe before the supervisor has told of it
            killings = eventually(lambda: [e for e in told(service) if isinstance(e, LeaderKilled)], "it is told")
            assert [event.seconds for event in killings] == [None]
        else:
            eventually(lambda: [what for _, what, _, _ in leading.lines() if what == "two"], "two lead")
        (tmp_path / "hold").unlink()
    assert locked != ("two" in {what for _, what, _, _ in leading.lines()})


def test_one_leads_in_a_rolling_reload(tmp_path: Path) -> None:
    """Also while the last old worker has left and the last new one boots: there is one that serves."""
    leading = Leading(tmp_path)
    rolling = ("--strategy", "rolling", "--max-surge", "0", "--max-unavailable", "1")
    with Service(tmp_path, *APP, *rolling, workers=2) as service:
        for generation in (1, 2, 3):
            if generation > 1:
                service.reload()
            eventually(partial(leads_alone, service, generation), f"one of gen {generation} leads")
            leading.until_begun(generation)
    assert leading.check({}) == 3
