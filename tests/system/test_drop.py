"""The promise: no client can tell a reload. And the proof that this test could see one who can."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.connection import NoAnswer, Target
from benchmarks.control import Control
from benchmarks.drop import MIX, Noticed, prove
from benchmarks.load import Mix, Report
from tests.system.harness import ROOT, Service, mutated

GOOD, BROKEN = "from benchmarks.app import app\n", "import nosuch\n"
RELOADS = 6
REJECTED = 2
"""Which of the reloads finds broken code."""
ENOUGH = 15
"""Reloads within which a broken copy loses something; most lose it in the first."""


def _service(
    folder: Path, bind: str = "127.0.0.1:0", options: Sequence[str] = (), changes: Sequence[tuple[str, str, str]] = ()
) -> Service:
    copy = mutated(folder, *changes)["PYTHONPATH"] + ":" if changes else ""
    service = Service(
        folder,
        "main:app",
        *("--no-access-log", "--health-path", "/healthz"),
        *options,
        binds=[bind.format(folder)],
        workers=2,
        environment={"PYTHONPATH": f"{copy}{ROOT}"},
    )
    service.tracebacks_expected = True  # the rejected one's
    service.write(GOOD)
    return service


def _prove(service: Service, mix: Mix = MIX, reloads: int = RELOADS) -> Report:
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
    return asyncio.run(prove(target, reload, control.pids, mix, reloads=reloads, patience=5))


@pytest.mark.parametrize(
    ("http", "loop", "bind", "think"),
    [
        ("httptools", "uvloop", "127.0.0.1:0", 0.0),
        ("httptools", "asyncio", "unix:{}/app.sock", 0.01),
        ("h11", "uvloop", "unix:{}/app.sock", 0.0),
        ("h11", "asyncio", "127.0.0.1:0", 0.01),
    ],
    ids=lambda value: str(value).partition(":")[0],
)
def test_no_client_can_tell_a_reload(tmp_path: Path, http: str, loop: str, bind: str, think: float) -> None:
    """Six reloads under every kind of load fail no request, close no connection and reconnect nobody.

    And they are real: within 2 s of each cut-over every kept connection has an answer of the new generation, and the
    old processes are gone. One of the six finds code that cannot be imported: it is rejected, and nobody moves.
    """
    with _service(tmp_path, bind, ("--http", http, "--loop", loop)) as service:
        report = _prove(service, Mix(**{**vars(MIX), "think": think}))
        status = service.status()
    print(
        f"{RELOADS} reloads: {report}, {report.crossed} crossed, longest pause {status.crossing.longest * 1000:.1f} ms"
    )
    assert report.crossed == MIX.kept * (RELOADS - 1)
    assert (status.crossing.lost, status.crossing.closed) == (0, 0)


DRAINS_BEFORE_READY = (
    (
        "core/rollout.py",
        "        for slot in range(1, generation.size + 1):\n",
        "        if serving: self.retire(serving)\n        for slot in range(1, generation.size + 1):\n",
    ),
)
"""Red at the release that is rejected: nobody is left to serve."""
CLOSES_INSTEAD_OF_GIVING = (
    (
        "worker/giving.py",
        "adoption.send(self._writer, encode(infos), fds)",
        "pass",
    ),
)
"""Red at once: every idle client finds its connection closed, some of them with a request on its way."""
GIVES_THE_BUSY = (
    ("worker/giving.py", "if found is None or not may_move(found):", "if found is None:"),
    (
        "worker/giving.py",
        "listening:\n            self._turn = self._loop.call_soon(",
        "listening:\n            self._turn = self._loop.call_later(0.05, ",
    ),
)
"""What was idle when it was offered, some moments ago, has a request by the time it is given without another look; the
request is gone with the old copy."""
DROPS_THE_HEAD = (("worker/giving.py", 'head = found.head or b""', 'head = b""'),)
"""Red at once: the second half of a request head is none, and is answered 400."""
FORGETS_THE_BODY = (("core/crossing.py", "        or standing.arriving\n", ""),)
"""Red at once: the rest of a body whose answer came early is taken for a request by the next worker."""
SAYS_CLOSE = (("worker/server.py", "if final or not self._site.can_move:", "if True:"),)
"""Red at once: what the old generation answers in its drain says that its connection closes."""
LOOKS_ONCE = (("worker/connections.py", "        borrowed.follow(connection, self.look)\n", ""),)
"""Red after 2 s: whoever had a request in progress at the cut-over never moves, so the old processes don't leave."""


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(DRAINS_BEFORE_READY, id="drains-before-ready"),
        pytest.param(CLOSES_INSTEAD_OF_GIVING, id="closes-instead-of-giving"),
        pytest.param(GIVES_THE_BUSY, id="gives-the-busy"),
        pytest.param(DROPS_THE_HEAD, id="drops-the-head"),
        pytest.param(FORGETS_THE_BODY, id="forgets-the-body"),
        pytest.param(SAYS_CLOSE, id="says-close"),
        pytest.param(LOOKS_ONCE, id="looks-once"),
    ],
)
def test_a_broken_copy_is_found_out(tmp_path: Path, changes: Sequence[tuple[str, str, str]]) -> None:
    """The same proof fails for a copy of stillup whose crossing is broken on purpose."""
    with (
        _service(tmp_path, options=("--drain-timeout", "2"), changes=changes) as service,
        pytest.raises((Noticed, TimeoutError)) as failure,
    ):
        _prove(service, reloads=ENOUGH)
    print(failure.value)
