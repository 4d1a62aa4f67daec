"""The parameters of an operation: what is read, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.errors import Refused, UsageError
from stillup.wire.api_operation import Operation, Parameter
from stillup.wire.operations import OPERATIONS

BY_NAME = {operation.name: operation for operation in OPERATIONS}
FLAG = Parameter("follow", "whether", bool)
SECONDS = Parameter("seconds", "for how long", float)


def test_parameters_have_their_values() -> None:
    """Numbers are numbers, and words are themselves; what was not given is left out."""
    assert BY_NAME["scale"].read({}, {"workers": ["4"], "wait": ["true"]}) == {"workers": 4, "wait": "true"}
    assert BY_NAME["rollout"].read({"id": "7"}, {}) == {"id": 7}
    assert BY_NAME["reload"].read({}, {}) == {}
    assert (FLAG.read("true"), FLAG.read("false")) == (True, False)
    assert FLAG.schema() == {"type": "boolean"}
    assert SECONDS.schema() == {"type": "number", "minimum": 0}
    assert [SECONDS.read(text) for text in ("0.25", "60")] == [0.25, 60.0]
    for text in ("-1", "1e3", ".5", "nan", "inf", "1_0"):
        with pytest.raises(UsageError, match=f"seconds={text}: it is a number, such as 4"):
            SECONDS.read(text)
    assert BY_NAME["scale"].parameters[0].schema() == {"type": "integer", "format": "int64", "minimum": 1}
    assert BY_NAME["rollout"].parameters[0].schema() == {"type": "integer", "format": "int64"}


@pytest.mark.parametrize(
    ("name", "query", "says"),
    [
        ("reload", {"wait": ["soon"]}, r"wait=soon: it is 'true' or 'probation' or 'drained' \(true: answer at"),
        (
            "reload",
            {"wiat": ["true"]},
            r"/reload takes no parameter 'wiat' \(it takes 'wait', 'if_changed', 'force', 'hurry', 'strategy', ",
        ),
        ("status", {"x": ["1"]}, r"takes no parameter 'x' \(it takes none\)"),
        ("reload", {"wait": ["true", "true"]}, "wait was given 2 times"),
        ("scale", {}, "POST /v1/scale needs workers: how many are wanted"),
        ("scale", {"workers": ["many"]}, "workers=many: it is a number, such as 4"),
        ("scale", {"workers": ["1_000"]}, "it is a number"),
        ("scale", {"workers": ["9" * 5000]}, "it is a number"),
    ],
)
def test_a_mistake_is_named(name: str, query: dict[str, list[str]], says: str) -> None:
    """With what would have been right."""
    with pytest.raises(UsageError, match=says):
        BY_NAME[name].read({}, query)


def test_a_path_that_leads_nowhere() -> None:
    """It is not found, rather than wrong."""
    with pytest.raises(Refused, match="nothing is known by the number 'last'") as caught:
        BY_NAME["rollout"].read({"id": "last"}, {})
    assert caught.value.code == "not-found"


@given(text=st.text(), operation=st.sampled_from(OPERATIONS))
def test_any_text_is_read_or_refused(text: str, operation: Operation) -> None:
    """No text makes anything else of it."""
    for parameter in operation.parameters:
        try:
            parameter.read(text)
        except Refused:
            continue
