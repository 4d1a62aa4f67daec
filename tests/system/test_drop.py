"""The promise: no client can tell a reload. And the proof that this test could see one who can."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.connection import NoAnswer, Target
from benchmarks.control import Control
from benchmarks.drop import MIX, SOON, Noticed, prove
from benchmarks.load import KINDS, Mix, Report
from tests.system import mutations
from tests.system.harness import DEADLINE, FULL, ROOT, Service, sample
from tests.system.mutations import Mutation, mutated

GOOD, BROKEN = "from benchmarks.app import app\n", "import nosuch\n"
RELOADS = 6 if FULL else 2
REJECTED = 2
"""Which of the reloads finds broken code."""
FEWER = replace(MIX, **{kind: (getattr(MIX, kind) + 1) // 2 for kind in KINDS})
"""Half as many clients: a service that is not busy all the time takes as long for a reload."""
BROKEN_MIX = replace(MIX if FULL else FEWER, think=0.02)
ENOUGH = 15
"""Reloads within which a broken copy loses something; most lose it in the first."""


def _service(
    folder: Path,
    bind: str = "127.0.0.1:0",
    options: Sequence[str] = (),
    changes: Sequence[Mutation] = (),
    workers: int = 2,
) -> Service:
    copy = mutated(folder, *changes)["PYTHONPATH"] + ":" if changes else ""
    service = Service(
        folder,
        "main:app",
        *("--no-access-log", "--health-path", "/healthz"),
        *options,
        binds=[bind.format(folder)],
        workers=workers,
        environment={"PYTHONPATH": f"{copy}{ROOT}"},
    )
    service.tracebacks_expected = True  # the rejected one's
    service.write(GOOD)
    return service


def _prove(
    service: Service, mix: Mix = MIX, reloads: int = RELOADS, soon: float = SOON, patience: float = 5.0
) -> Report:
    control = Control(str(service.runtime))
    serving, asked = "1", 0

    async def reload() -> str:
        nonlocal serving, asked
        asked += 1
        service.write(BROKEN if asked == REJECTED else GOOD)
        try:
            serving = str((await control.reload())["generation"])
        except NoAnswer:
            assert asked == REJECTED, service.log()
        else:
            assert asked != REJECTED, "broken code was put into service"
        return serving

    target = Target.parse(service.address())
    return asyncio.run(prove(target, reload, control.pids, mix, reloads=reloads, soon=soon, patience=patience))


full = pytest.mark.skipif(not FULL, reason="takes 20 s: make prove-repeats, and make prove-drop for all of them")


@pytest.mark.parametrize(
    ("http", "loop", "bind", "think"),
    [
        ("httptools", "uvloop", "127.0.0.1:0", 0.0),
        ("h11", "asyncio", "unix:{}/app.sock", 0.02),
        pytest.param("httptools", "asyncio", "unix:{}/app.sock", 0.01, marks=full),
        pytest.param("h11", "uvloop", "unix:{}/app.sock", 0.0, marks=full),
        pytest.param("h11", "asyncio", "127.0.0.1:0", 0.01, marks=full),
    ],
    ids=lambda value: str(value).partition(":")[0],
)
def test_no_client_can_tell_a_reload(tmp_path: Path, http: str, loop: str, bind: str, think: float) -> None:
    """Reloads under every kind of load fail no request, close no connection and reconnect nobody.

    And they are real: within 2 s of each cut-over every kept connection has an answer of the new generation, and the
    old processes are gone (8 s, where other tests run at the same time). One of them finds code that cannot be
    imported: it is rejected, and nobody moves.
    """
    with _service(tmp_path, bind, ("--http", http, "--loop", loop)) as service:
        mix = replace(MIX if FULL else FEWER, think=think)
        report = _prove(service, mix, soon=SOON if FULL else 4 * SOON, patience=DEADLINE)
        status = service.status()
    print(
        f"{RELOADS} reloads: {report}, {report.crossed} crossed, longest pause {status.crossing.longest * 1000:.1f} ms"
    )
    assert report.crossed == mix.kept * (RELOADS - 1)
    assert (status.crossing.lost, status.crossing.closed) == (0, 0)


@pytest.mark.parametrize(
    "changes",
    sample(
        [
            pytest.param([mutations.DRAINS_BEFORE_READY], id="drains-before-ready"),
            pytest.param([mutations.CLOSES_INSTEAD_OF_SENDING], id="closes-instead-of-sending"),
            pytest.param(mutations.SENDS_THE_BUSY, id="sends-the-busy"),
            pytest.param([mutations.DROPS_THE_HEAD], id="drops-the-head"),
            pytest.param([mutations.FORGETS_THE_BODY], id="forgets-the-body"),
            pytest.param([mutations.SAYS_CLOSE], id="says-close"),
            pytest.param([mutations.LOOKS_ONCE], id="looks-once"),
        ],
        few=2,
    ),
)
def test_a_broken_copy_is_found_out(tmp_path: Path, changes: Sequence[Mutation]) -> None:
    """The same proof fails for a copy of stillup whose crossing is broken on purpose."""
    with (
        _service(tmp_path, options=("--drain-timeout", "2"), changes=changes, workers=1) as service,
        pytest.raises((Noticed, TimeoutError)) as failure,
    ):
        _prove(service, BROKEN_MIX, reloads=ENOUGH)
    print(failure.value)
