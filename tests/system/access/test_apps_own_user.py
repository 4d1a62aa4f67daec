"""An app that becomes another user by itself, in workers of root's, and the supervisor dies."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.system.access.open_interpreter import for_anybody, no_mounts
from tests.system.access.people import mode_of, needs_root
from tests.system.harness import APP, Service, pids

pytestmark = needs_root

APPS = 20_040
APP_OF_ANOTHER_USER = APP.replace(
    '            await send({"type": step + ".complete"})',
    """            if step == "lifespan.startup":
                os.setgroups([])
                uid = USER
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            await send({"type": step + ".complete"})""",
)
ONE_FOR_EACH = 'int(os.environ["STILLUP_WORKER"]) + 20_040'


@contextlib.contextmanager
def serving(folder: Path, user: str) -> Iterator[Service]:
    """Root's, and so are its workers until the app starts."""
    service = Service(folder, "main:app", "--orphan-timeout", "60", workers=2, runtime=folder / "rt")
    service.argv = [*for_anybody(folder), *service.argv]
    service.write(APP_OF_ANOTHER_USER.replace("USER", user))
    with service:
        yield service


def _dies(service: Service) -> None:
    service.signal(signal.SIGKILL)
    service.process.wait(20)
    no_mounts(service.folder)


def test_they_are_adopted(folder: Path) -> None:
    """The next supervisor lets in whom it has on record, and they come back, as often as it takes.

    Over a kill, and over a re-exec; new workers begin as root's, and become that user as they did.
    """
    with serving(folder, str(APPS)) as service:
        left = pids(service)
        assert {psutil.Process(pid).uids().effective for pid in left.values()} == {APPS}
        assert mode_of(service.runtime) == (0o700, 0, 0)
        for _ in range(2):
            _dies(service)
            service.start()
            assert pids(service) == left
            assert mode_of(service.runtime) == (0o711, 0, 0)
            assert mode_of(service.runtime / "handoff.sock") == (0o600, APPS, 0)
        assert service.cli("supervisor", "reexec").returncode == 0
        assert pids(service) == left
        service.client.reload(wait="drained")
        after = pids(service)
        assert not {*after.values()} & {*left.values()}
        _dies(service)
        service.start()
        assert pids(service) == after


def test_of_several_users(folder: Path) -> None:
    """One socket file has one owner: a start says so and what to do, and after that it works."""
    with serving(folder, ONE_FOR_EACH) as service:
        left = pids(service)
        users = {psutil.Process(pid).uids().effective for pid in left.values()}
        assert users == {APPS + 1, APPS + 2}
        _dies(service)
        refused = subprocess.run(service.argv, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
        assert refused.returncode == 1
        assert f"workers of uid {APPS + 1} and {APPS + 2} serve here" in refused.stderr
        assert "end them first ('stillup stop')" in refused.stderr
        assert {psutil.Process(pid).uids().effective for pid in left.values()} == users
        stopped = service.cli("stop")
        assert (stopped.returncode, "ending the 2 workers that it left" in stopped.stdout) == (0, True), stopped
        no_mounts(folder)
        service.start()
        assert not {*pids(service).values()} & {*left.values()}
