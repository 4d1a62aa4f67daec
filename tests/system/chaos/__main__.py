"""Hit a rollout in every phase: `python -m tests.system.chaos`. Exits with 1 if a cell came out as it must not."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.system.chaos.cell_runner import Broken, Outcome, play
from tests.system.chaos.matrix import PHASES, Cell, Phase, matrix

ROW = "{:12}  {:10}  {:7}  {:>4}  {:>7}  {:>4}  {:>8}  {:14}  {}"


class Row:
    """What all runs of one cell saw."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.runs = self.allowed = self.lost = self.requests = 0
        self.outcomes: dict[str, None] = {}
        self.broken: list[Broken] = []

    def add(self, outcome: Outcome) -> None:
        """It came out as it has to."""
        self.runs += 1
        self.allowed += outcome.losses.allowed
        self.lost += outcome.losses.lost
        self.requests += outcome.requests
        self.outcomes[outcome.rollout["outcome"]] = None

    def fail(self, broken: Broken) -> None:
        """It did not."""
        self.runs += 1
        self.broken.append(broken)

    def __str__(self) -> str:
        cell = self.cell
        verdict = f"BROKEN {len(self.broken)} times" if self.broken else "ok"
        words = cell.phase.name, cell.victim, cell.blow, self.runs, self.allowed, self.lost, self.requests
        return ROW.format(*words, ", ".join(self.outcomes), verdict)


def run(cells: Sequence[Cell], rows: dict[str, Row], seed: int) -> None:
    """Play the cells of one phase on one service, or on as many as they break."""
    left = list(cells)

    def done(outcome: Outcome) -> None:
        rows[left.pop(0).id].add(outcome)

    while left:
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            try:
                play(tuple(left), Path(folder), seed, done=done)
            except Broken as broken:
                if broken.cell is None:
                    raise
                if left and left[0] is broken.cell:
                    left.pop(0)
                rows[broken.cell.id].fail(broken)


def main() -> int:
    """Run the chosen cells phase by phase, print the lines of each when it is done, and at the end what broke."""
    options = _options()
    began = time.monotonic()
    print(ROW.format("phase", "victim", "blow", "runs", "allowed", "lost", "requests", "rollout", "").rstrip())
    rows = [row for phase in PHASES for row in _phase(phase, options)]
    broken = [error for row in rows for error in row.broken]
    print(
        f"{len(rows)} cells, {sum(row.runs for row in rows)} runs, {sum(row.requests for row in rows)} requests: "
        f"{sum(row.allowed for row in rows)} connections were held by who was killed, "
        f"{sum(row.lost for row in rows)} of them lost, {len(broken)} runs broken; {time.monotonic() - began:.0f} s"
    )
    for error in broken:
        print(f"\n{error}")
    return 1 if broken else 0


def _phase(phase: Phase, options: argparse.Namespace) -> list[Row]:
    """Run the chosen cells of one phase as often as was asked, and print them."""
    chosen = [cell for cell in matrix() if cell.phase is phase and (not options.cell or cell.id in options.cell)]
    cells = [cell for cell in chosen if not cell.senseless]
    rows = {cell.id: Row(cell) for cell in cells}
    for number in range(options.runs):
        run(cells, rows, options.seed + number)
    for cell in chosen:
        if cell.senseless:
            print(f"{cell.phase.name:12}  {cell.victim:10}  {cell.blow:7}  none: {cell.senseless}")
        else:
            print(rows[cell.id], flush=True)
    return list(rows.values())


def _options() -> argparse.Namespace:
    phases = "\n".join(f"  {phase.name:14}{phase.who}: {phase.what}" for phase in PHASES)
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.chaos",
        description=f"{__doc__}\n\nThe phases, and who stands still there:\n{phases}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=1, help="of each cell, each with another seed")
    parser.add_argument("--seed", type=int, default=1, help="of the first run")
    parser.add_argument("--cell", action="append", metavar="ID", help="only this one, such as ready-old-kill")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
