"""Tests of a group run in one process: two loads at a time would be in each other's way, and services are shared."""

from __future__ import annotations

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="in one process there is nothing to spread")
@pytest.mark.xdist_group("groups")
def test_a_group_is_known_to_who_spreads_the_tests(request: pytest.FixtureRequest) -> None:
    """pytest-xdist goes by the node id, to which it adds the group's name."""
    assert request.node.nodeid.endswith("@groups")
    loads = [item.nodeid for item in request.session.items if "tests/benchmarks/" in item.nodeid]
    assert all(nodeid.endswith("@load") for nodeid in loads), "those of whole folders, too"
