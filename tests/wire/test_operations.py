"""The table of the control API is whole."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from stillup.client.control_client import Client
from stillup.core.access import Role
from stillup.core.strategy import StrategyKind
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


def test_every_strategy_can_be_asked_for() -> None:
    """By the API and by the client: for type checkers there is a list of its own."""
    (asked,) = (one.type for one in BY_NAME["reload"].parameters if one.name == "strategy")
    by_client = get_type_hints(Client.reload)["strategy"]
    words = {word for part in get_args(by_client) for word in get_args(part)}
    assert set(get_args(asked)) == words == set(map(str, StrategyKind))
