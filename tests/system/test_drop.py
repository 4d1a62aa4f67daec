"""The promise: a reload under load fails no request. And the proof that this test could see one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.load import Load, Mix, Report, Target
from tests.system.harness import ROOT, Service, mutated

MIX = Mix(fresh=4, unread=6, half_head=6, keepalive=8, slow=4, upload=4, stream=4)
GOOD, BROKEN = "from benchmarks.app import app\n", "import nosuch\n"
REJECTED = 3
"""Which of the reloads finds broken code."""


def _service(
    folder: Path, bind: str, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Service:
    path = {"PYTHONPATH": f"{ROOT}:{(environment or {}).get('PYTHONPATH', '')}"}
    if environment:
        path = {"PYTHONPATH": f"{environment['PYTHONPATH']}:{ROOT}"}
    service = Service(
        folder,
        "main:app",
        *("--no-access-log", "--health-path", "/healthz", "--drain-timeout", "10"),
        *options,
        binds=[bind.format(folder)],
        workers=2,
        environment=path,
    )
    service.write(GOOD)
    service.tracebacks_expected = True  # the rejected one's
    return service


async def _load(service: Service, reloads: int, patience: float) -> Report:
    async with Load(Target.parse(service.address()), MIX, seed=reloads) as load:
        await load.wait_every_client(deadline=patience)
        for number in range(1, reloads + 1):
            service.write(BROKEN if number == REJECTED else GOOD)
            reload = await asyncio.to_thread(service.reload)
            assert reload.returncode == (1 if number == REJECTED else 0), reload.stdout + reload.stderr
            await load.wait_every_client(deadline=patience)
        await load.every_connection_answers(str(reloads + 1), deadline=patience)
        return await load.stop(deadline=patience)


def _prove(service: Service, reloads: int, patience: float = 30) -> None:
    """Reload under load and demand that nobody noticed, and that the reloads were real."""
    before = {process.pid for process in service.family()}
    report = asyncio.run(_load(service, reloads, patience))
    print(f"{reloads} reloads, one of them rejected: {report}")
    assert report.failed == 0, (str(report), report.failures)
    assert all(tally.requests > 0 for tally in report.kinds.values()), report
    # One number is that of the rejected generation, which answered nobody.
    assert set(report.generations) == {str(n) for n in range(1, reloads + 2)} - {str(REJECTED + 1)}
    assert not before & {process.pid for process in service.family()}


@pytest.mark.parametrize(
    ("bind", "options"),
    [
        pytest.param("127.0.0.1:0", (), id="tcp-httptools-uvloop"),
        pytest.param("unix:{}/app.sock", ("--http", "h11", "--loop", "asyncio"), id="unix-h11-asyncio"),
    ],
)
def test_no_request_fails(tmp_path: Path, bind: str, options: tuple[str, ...]) -> None:
    """Ten reloads under a mixed load fail no request of any class, and put new processes in the place of the old."""
    with _service(tmp_path, bind, options) as service:
        _prove(service, 10)


CLOSES_UNREAD = (
    "core/drain.py",
    "ConnectionClass.UNREAD: Rule(handover=_HEAD, final=2.0)",
    "ConnectionClass.UNREAD: Rule(handover=0.0, final=0.0)",
)
DRAINS_BEFORE_READY = (
    "core/rollout.py",
    "        for slot in range(1, generation.size + 1):\n",
    "        if serving: self.retire(serving)\n        for slot in range(1, generation.size + 1):\n",
)


@pytest.mark.parametrize("change", [CLOSES_UNREAD, DRAINS_BEFORE_READY], ids=["closes-unread", "drains-before-ready"])
def test_a_broken_copy_is_found_out(tmp_path: Path, change: tuple[str, str, str]) -> None:
    """The same proof fails for a copy of stillup whose drain is broken on purpose."""
    with (
        _service(tmp_path, "127.0.0.1:0", environment=mutated(tmp_path, change)) as service,
        pytest.raises((AssertionError, TimeoutError)) as failure,
    ):
        _prove(service, 4, patience=5)
    print(f"{change[0]}: {failure.value}")
