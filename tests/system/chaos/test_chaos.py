"""A part of the matrix that has each phase, each victim and each blow; all of it is ``make chaos``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.system.chaos import arena
from tests.system.chaos.arena import Broken, Outcome, play
from tests.system.chaos.points import PHASES, Change, Victim, matrix

SEED = int(os.environ.get("STILLUP_CHAOS_SEED", "1"))
CELLS = {cell.id: cell for cell in matrix() if not cell.senseless}
BEFORE = (
    "asked-supervisor-kill",
    "spawned-new-kill",
    "hello-supervisor-stop",
    "listeners-new-stop",
    "booting-supervisor-kill",
    "ready-old-kill",
    "admitting-supervisor-kill",
)
AFTER = (
    "accepting-new-both",
    "cutting-over-supervisor-kill",
    "draining-old-stop",
    "crossing-old-both",
    "crossing-supervisor-kill",
    "leaving-new-kill",
)


@pytest.mark.parametrize("names", [BEFORE, AFTER], ids=["before-anybody-accepts", "from-the-first-accept-on"])
def test_only_what_the_dead_held_is_lost(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Whoever is hit in whatever phase: the rollout ends, the next works, and nothing is lost but what he held."""
    outcomes: list[Outcome] = []
    play([CELLS[name] for name in names], tmp_path, SEED, done=outcomes.append)
    for outcome in outcomes:
        print(f"{outcome.cell}: {outcome.toll.lost} of {outcome.toll.allowed} lost, {outcome.requests} requests")
    assert len(outcomes) == len(names)


def test_the_part_has_every_phase_victim_and_blow() -> None:
    """But for one phase, which differs from the one before by a moment that only the supervisor knows."""
    chosen = [CELLS[name] for name in BEFORE + AFTER]
    assert {cell.phase.name for cell in chosen} == {phase.name for phase in PHASES} - {"spawning"}
    assert {(cell.victim, cell.blow) for cell in chosen} == {(cell.victim, cell.blow) for cell in CELLS.values()}
    assert {cell.victim for cell in chosen} == set(Victim)


BINDS_ANEW = (
    "daemon/main.py",
    "        elif not self._left_behind:\n",
    "        else:\n            self._left_behind = False\n",
)
"""Red: those who live listen where the next supervisor does not, and it knows nobody of them."""
DRAINS_BEFORE_READY = (
    "core/rollout.py",
    "        for slot in range(1, generation.size + 1):\n",
    "        if serving: self.retire(serving)\n        for slot in range(1, generation.size + 1):\n",
)
"""Red: the new ones die, and the old are on their way out."""


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("cutting-over-supervisor-kill", BINDS_ANEW, id="binds-anew"),
        pytest.param("spawned-new-kill", DRAINS_BEFORE_READY, id="drains-before-ready"),
    ],
)
def test_a_broken_copy_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: Change) -> None:
    """The same cell fails for a copy of stillup that is broken on purpose."""
    monkeypatch.setattr(arena, "PATIENCE", 4.0)
    with pytest.raises(Broken) as failure:
        play([CELLS[name]], tmp_path, SEED, [change])
    print(str(failure.value).splitlines()[0])
