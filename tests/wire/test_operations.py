"""The table of the control API is whole."""

from __future__ import annotations

import pytest

from stillup.core.access import Role
from stillup.wire.api_operation import ApiSocket, Operation
from stillup.wire.operations import OPERATIONS
from stillup.wire.problem_types import PROBLEM_TYPES

BY_NAME = {operation.name: operation for operation in OPERATIONS}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_every_row_is_whole(operation: Operation) -> None:
    """What changes something is a POST at the control socket alone; every problem has a status."""
    assert operation.method == "GET" or operation.role.covers(Role.OPERATOR)
    assert operation.method == "GET" or operation.sockets == {ApiSocket.CONTROL}
    assert set(operation.problems) <= set(PROBLEM_TYPES)
    assert operation.path.count("{") == sum(parameter.place == "path" for parameter in operation.parameters)


def test_no_row_is_there_twice() -> None:
    """Neither by its name nor by its method and path."""
    assert len(BY_NAME) == len({(one.method, one.path) for one in OPERATIONS}) == len(OPERATIONS)
