"""A part of the matrix that has each phase, each victim and each blow; all of it is ``make prove-chaos``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.system.chaos import cell_runner
from tests.system.chaos.cell_runner import Broken, Outcome, play
from tests.system.chaos.matrix import PHASES, Victim, matrix
from tests.system.harness import FULL, sample
from tests.system.mutations import BINDS_ANEW, DRAINS_BEFORE_READY, Mutation

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
    """Whoever is hit in whatever phase: the rollout ends, the next works, and only what the victim held is lost."""
    names = names if FULL else names[::2]  # prove-repeats has all of them, prove-chaos the whole matrix
    outcomes: list[Outcome] = []
    play([CELLS[name] for name in names], tmp_path, SEED, done=outcomes.append)
    for outcome in outcomes:
        print(f"{outcome.cell}: {outcome.losses.lost} of {outcome.losses.allowed} lost, {outcome.requests} requests")
    assert len(outcomes) == len(names)


def test_the_part_has_every_phase_victim_and_blow() -> None:
    """But for one phase, which differs from the one before by a moment that only the supervisor knows."""
    chosen = [CELLS[name] for name in BEFORE + AFTER]
    assert {cell.phase.name for cell in chosen} == {phase.name for phase in PHASES} - {"spawning"}
    assert {(cell.victim, cell.blow) for cell in chosen} == {(cell.victim, cell.blow) for cell in CELLS.values()}
    assert {cell.victim for cell in chosen} == set(Victim)


@pytest.mark.parametrize(
    ("name", "change"),
    sample(
        [
            pytest.param("cutting-over-supervisor-kill", BINDS_ANEW, id="binds-anew"),
            pytest.param("spawned-new-kill", DRAINS_BEFORE_READY, id="drains-before-ready"),
        ]
    ),
)
def test_a_broken_copy_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: Mutation
) -> None:
    """The same cell fails for a copy of stillup that is broken on purpose."""
    monkeypatch.setattr(cell_runner, "PATIENCE", 4.0)
    with pytest.raises(Broken) as failure:
        play([CELLS[name]], tmp_path, SEED, [change])
    print(str(failure.value).splitlines()[0])
