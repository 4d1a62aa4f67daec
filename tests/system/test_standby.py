"""A standby: the old workers pause, and a rollback has them serve again at once, under load and without a loss."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest

from stillup.client import ProblemError
from tests.system import mutations
from tests.system.harness import APP, FULL, Service, connect, eventually
from tests.system.mutations import mutated
from tests.system.steady_load import Traffic

pytestmark = pytest.mark.xdist_group("standby")

ROLLBACKS = 20 if FULL else 3
"""Reloads, each of which is rolled back."""
AT_ONCE = 2.0
"""Seconds from the order to accept until both serve, at best of all; the figure is printed."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers, in releases by turns; the old ones stand by for long."""
    with releases(tmp_path_factory.mktemp("standby"), APP, workers=2) as made:
        yield made


def releases(folder: Path, app: str, workers: int, environment: Mapping[str, str] | None = None) -> Service:
    """A service of an app in three releases, of which the first is the current one."""
    options = ("--directory", str(folder / "current"), "--standby", "600")
    made = Service(folder, "main:app", *options, workers=workers, environment=environment)
    for number in (1, 2, 3):
        (folder / f"releases/{number}").mkdir(parents=True)
        made.write(app, f"v{number}", f"releases/{number}/main.py")
    (folder / "current").symlink_to("releases/1")
    return made


def link_to(service: Service, number: int) -> None:
    link = service.folder / "current"
    link.unlink()
    link.symlink_to(f"releases/{number}")


def deploy(service: Service, number: int) -> None:
    link_to(service, number)
    assert service.client.reload(wait="cut-over").outcome == "succeeded"


@pytest.fixture
def at_rest(service: Service) -> Service:
    """Each test begins with two workers of the first release, and nothing beside them."""
    service.client.scale(2, wait="drained")
    deploy(service, 1)
    service.client.reload(wait="drained", standby=0)
    eventually(lambda: len(service.generations()) == 1, "one generation")
    return service


def pids(service: Service, state: str = "serving") -> set[int]:
    return {worker.pid for worker in service.workers(state) if worker.pid is not None}


@pytest.mark.timeout(600 if FULL else 180)
def test_rollbacks(at_rest: Service) -> None:
    """Each serves with the very workers that served before, some milliseconds after it was asked for."""
    service = at_rest
    took: list[float] = []
    first: list[float] = []
    with Traffic(service.address()) as traffic:
        for _ in range(ROLLBACKS):
            before = pids(service)
            deploy(service, 2)
            assert pids(service, "paused") == before
            traffic.moves_to(pids(service))
            asked = time.monotonic()
            rollout = service.client.rollback(wait="cut-over")
            took.append(rollout.cut_over_took or 0.0)
            assert pids(service) == before
            traffic.moves_to(before)
            first.append(traffic.first_by(before, asked))
            eventually(lambda: not pids(service, "draining"), "what was taken back has left")
    for what, seconds in (("cut over", took), ("request to first answer", first)):
        print(f"{len(traffic.pids)} answers, {what}: {', '.join(f'{one * 1000:.1f}' for one in sorted(seconds))} ms")
    assert min(took) < AT_ONCE


def test_supervisors_come_and_go(at_rest: Service) -> None:
    """Killed, or replaced by another program: paused stays paused, and comes back all the same."""
    service = at_rest
    before = pids(service)
    with Traffic(service.address()) as traffic:
        deploy(service, 2)
        traffic.moves_to(pids(service))
        service.process.kill()
        service.process.wait()
        service.start()
        service.signal(signal.SIGUSR2)
        service.reexecuted(1)
        traffic.goes_on()
        assert pids(service, "paused") == before
        service.client.rollback(wait="cut-over")
        assert pids(service) == before
        traffic.moves_to(before)


def test_a_paused_worker_is_killed(at_rest: Service) -> None:
    """Nobody notices, and it is not replaced; a rollback starts one in its place, and both serve."""
    service = at_rest
    first, second = sorted(pids(service))
    with Traffic(service.address()) as traffic:
        deploy(service, 2)
        traffic.moves_to(pids(service))
        os.kill(first, signal.SIGKILL)
        eventually(lambda: pids(service, "paused") == {second}, "it is gone")
        traffic.goes_on()
        service.client.rollback(wait="cut-over")
        assert second in pids(service)
        assert len(pids(service)) == 2
        traffic.moves_to(pids(service))


def test_a_crash_is_taken_back(at_rest: Service) -> None:
    """By the very workers that served before it."""
    service = at_rest
    before = pids(service)
    deploy(service, 3)
    bad = service.generations()[-1]

    def crash() -> bool:
        for worker in service.workers():
            if worker.pid is not None and worker.id.startswith(f"{bad}."):
                with suppress(ProcessLookupError):  # the supervisor has yet to hear of its end
                    os.kill(worker.pid, signal.SIGKILL)
        return pids(service) == before

    eventually(crash, "what served before serves")
    assert service.get().split()[1] in {str(pid) for pid in before}
    with pytest.raises(ProblemError):
        deploy(service, 3)  # it was rolled back


def test_another_number_of_workers(at_rest: Service) -> None:
    """The slots that are wanted since boot for the rollback; what is there comes back as it is."""
    service = at_rest
    before = pids(service)
    deploy(service, 2)
    service.client.scale(3, wait=True)
    service.client.rollback(wait="cut-over")
    assert len(pids(service)) == 3
    assert pids(service) >= before


def test_the_newest_is_kept(at_rest: Service) -> None:
    """The next reload has the one before leave, and the end of its time this one."""
    service = at_rest
    first = pids(service)
    deploy(service, 2)
    second = pids(service)
    link_to(service, 1)
    rollout = service.client.reload(wait="cut-over")
    assert rollout.standby_left is not None
    eventually(lambda: not first & pids(service, "paused"), "the first is none any more")
    assert pids(service, "paused") == second
    service.client.reload(wait="cut-over", standby=1)
    eventually(lambda: len(service.generations()) == 1, "and neither is the last, when its time is over")


STREAMS = """
import asyncio, os, pathlib
from stillup.app import current
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            step = (await receive())["type"]
            await send({"type": step + ".complete"})
            if step == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{os.getpid()} {bool(current().draining)}\\n".encode(),
                "more_body": True})
    while scope["path"] == "/stream" and not pathlib.Path("go").exists():
        await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": b"end"})
"""


def test_what_a_paused_worker_still_has(tmp_path: Path) -> None:
    """An answer under way goes on through the pause and beyond it, on a connection that is served as ever then."""
    service = releases(tmp_path, STREAMS, workers=1)
    with service, closing(connect(service.address())) as client:
        client.request("GET", "/stream")
        answer = client.getresponse()
        pid, draining = answer.readline().split()
        assert draining == b"False"
        deploy(service, 2)
        assert pids(service, "paused") == {int(pid)}
        service.client.rollback(wait="cut-over")
        (tmp_path / "releases/1/go").touch()
        assert answer.read() == b"end"
        client.request("GET", "/")
        assert client.getresponse().read() == b"%s False\nend" % pid
        assert service.status().crossing.closed == 0


def test_this_test_could_see_it(tmp_path: Path) -> None:
    """Were a paused worker to accept on, it would answer beside those that took its place."""
    environment = mutated(tmp_path, mutations.ACCEPTS_PAUSED)
    with releases(tmp_path, APP, workers=1, environment=environment) as service:
        before = pids(service)
        deploy(service, 2)
        eventually(lambda: int(service.get().split()[1]) in before, "it answers")
