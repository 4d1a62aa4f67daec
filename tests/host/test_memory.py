"""How much memory we hold, against what we do to it and what others see of us."""

from __future__ import annotations

import mmap
import resource

import psutil
import pytest

from stillup.host.memory import resident
from tests.host.conftest import open_descriptors

pytestmark = pytest.mark.usefixtures("no_leak")

MB = 1 << 20
SLACK = 4 * MB
"""What an interpreter may take or give back meanwhile, and the kernel's own inaccuracy."""


def test_resident_is_what_others_see() -> None:
    """The figure is the resident size that psutil sees of this process."""
    assert abs(resident() - psutil.Process().memory_info().rss) < SLACK


def test_resident_follows_what_is_held() -> None:
    """Memory counts once it was written to, not when it was asked for, and no more when it was given back."""
    before = resident()
    with mmap.mmap(-1, 64 * MB) as held:
        assert resident() - before < SLACK
        for page in range(0, 64 * MB, mmap.PAGESIZE):
            held[page] = 1
        assert abs(resident() - before - 64 * MB) < SLACK
    assert abs(resident() - before) < SLACK


def test_resident_without_a_descriptor() -> None:
    """A process that has no descriptor left learns nothing of its memory, and nothing stays open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(set(range(4096)) - set(open_descriptors())), limits[1]))
    try:
        assert resident() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
