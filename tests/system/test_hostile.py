"""One worker misbehaves beside good ones: a sample of ``make prove-hostile``, in which nobody may notice anything."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.hostile import measure
from benchmarks.hostile_app import MODES

SAMPLE = ("flood", "handoff", "queue", "memory")
"""What costs others something if anything does; the proof has the rest."""


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_worker_that_means_ill() -> None:
    """While it floods, fills and poisons nobody loses anything, every reload is done, and /livez is answered."""
    assert set(SAMPLE) < set(MODES)
    hostile = asyncio.run(measure(SAMPLE, reloads=len(SAMPLE) - 1, dwell=0.8, workers=2))
    assert hostile.faults() == []
    assert set(hostile.livez) == set(SAMPLE)
    print(hostile)
