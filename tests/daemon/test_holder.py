"""Custody of the listeners and of the adoption queue."""

from __future__ import annotations

from tests.host.test_adoption import scarcity


def test_custody_without_descriptors() -> None:
    """Where too few descriptors are free to take custody, or to hand it on, nothing stays open of the attempt."""
    scarcity("custody")
