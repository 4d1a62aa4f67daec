"""Hit a rollout in every phase: `python -m tests.system.chaos`. Exits with 1 if a cell came out as it must not."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.system.chaos.cell import Broken, run
from tests.system.chaos.points import PHASES, Cell, matrix

ROW = "{:12}  {:10}  {:7}  {:>4}  {:>7}  {:>4}  {:>8}  {:14}  {}"


class Row:
    """What all runs of one cell saw."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.runs = self.allowed = self.lost = self.requests = 0
        self.outcomes: dict[str, None] = {}
        self.broken: list[Broken] = []

    def run(self, seed: int) -> None:
        """Run it once more."""
        self.runs += 1
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            try:
                outcome = run(self.cell, Path(folder), seed)
            except Broken as broken:
                self.broken.append(broken)
                return
        self.allowed += outcome.toll.allowed
        self.lost += outcome.toll.lost
        self.requests += outcome.requests
        self.outcomes[outcome.rollout["outcome"]] = None

    def __str__(self) -> str:
        cell = self.cell
        verdict = f"BROKEN {len(self.broken)} times" if self.broken else "ok"
        words = cell.phase.name, cell.victim, cell.blow, self.runs, self.allowed, self.lost, self.requests
        return ROW.format(*words, ", ".join(self.outcomes), verdict)


def main() -> int:
    """Run the chosen cells, print a line of each as it is done, and what broke."""
    options = _options()
    began = time.monotonic()
    print(ROW.format("phase", "victim", "blow", "runs", "allowed", "lost", "requests", "rollout", "").rstrip())
    rows = []
    for cell in matrix():
        if options.cell and cell.id not in options.cell:
            continue
        if cell.senseless:
            print(f"{cell.phase.name:12}  {cell.victim:10}  {cell.blow:7}  -  {cell.senseless}")
            continue
        row = Row(cell)
        for number in range(options.runs):
            row.run(options.seed + number)
        print(row, flush=True)
        rows.append(row)
    broken = [error for row in rows for error in row.broken]
    print(
        f"{len(rows)} cells, {sum(row.runs for row in rows)} runs, {sum(row.requests for row in rows)} requests: "
        f"{sum(row.allowed for row in rows)} connections were held by who was killed, "
        f"{sum(row.lost for row in rows)} of them lost, {len(broken)} runs broken; {time.monotonic() - began:.0f} s"
    )
    for error in broken:
        print(f"\n{error}")
    return 1 if broken else 0


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
