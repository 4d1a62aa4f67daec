"""The table of the control API: what it reads, what it refuses, and the document that is made of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.access import Role
from supervisor.errors import Refused, UsageError
from supervisor.wire.control import PROBLEM, Problem
from supervisor.wire.events import KINDS
from supervisor.wire.openapi import openapi
from supervisor.wire.operations import (
    ANYWHERE,
    API_HEADER,
    OPERATIONS,
    PROBLEMS,
    Door,
    Operation,
    Parameter,
    check_path,
    check_version,
    version,
)

DOCUMENT = json.loads(msgspec.json.encode(openapi("0.1.0")))
BY_NAME = {operation.name: operation for operation in OPERATIONS}
FLAG = Parameter("follow", "whether", bool)


def described(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][operation.path][operation.method.lower()]
    return found


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_every_row_is_whole(operation: Operation) -> None:
    """What changes something is a POST at the control socket alone; every problem has a status."""
    assert operation.method == "GET" or operation.role.covers(Role.OPERATOR)
    assert operation.method == "GET" or operation.doors == {Door.CONTROL}
    assert set(operation.problems) <= set(PROBLEMS)
    assert operation.path.count("{") == sum(parameter.place == "path" for parameter in operation.parameters)


def test_no_row_is_there_twice() -> None:
    """Neither by its name nor by its method and path."""
    assert len(BY_NAME) == len({(one.method, one.path) for one in OPERATIONS}) == len(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_the_document_has_every_row(operation: Operation) -> None:
    """With its role, its parameters and every answer, each with the version's header."""
    found = described(operation)
    assert (found["operationId"], found["x-stillup-role"]) == (operation.name, operation.role)
    assert [one["name"] for one in found["parameters"]] == [one.name for one in operation.parameters]
    statuses = {*map(str, operation.answers), *(str(PROBLEMS[code]) for code in (*ANYWHERE, *operation.problems))}
    assert set(found["responses"]) == statuses
    assert all(API_HEADER in answer["headers"] for answer in found["responses"].values())
    for answer in operation.answers.values():
        assert answer.what


def test_the_document_refers_only_to_what_it_has() -> None:
    """Every $ref leads to a schema."""
    text = json.dumps(DOCUMENT)
    refs = {part.split('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}
    assert refs <= set(DOCUMENT["components"]["schemas"])
    assert {"Status", "RolloutView", "Problem"} <= refs


def test_problems_are_problem_documents() -> None:
    """Every refusal has the media type of RFC 9457 and its shape."""
    content = described(BY_NAME["reload"])["responses"]["409"]["content"]
    assert content == {PROBLEM: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    assert "rollout-aborted" in described(BY_NAME["reload"])["responses"]["409"]["description"]


def test_where_a_location_is_promised() -> None:
    """What begins a rollout says where to find it."""
    assert "Location" in described(BY_NAME["reload"])["responses"]["202"]["headers"]
    assert "Location" not in described(BY_NAME["status"])["responses"]["200"]["headers"]


def test_parameters_have_their_values() -> None:
    """Numbers are numbers, and words are themselves; what was not given is left out."""
    assert BY_NAME["scale"].read({}, {"workers": ["4"], "wait": ["true"]}) == {"workers": 4, "wait": "true"}
    assert BY_NAME["rollout"].read({"id": "7"}, {}) == {"id": 7}
    assert BY_NAME["reload"].read({}, {}) == {}
    assert (FLAG.read("true"), FLAG.read("false")) == (True, False)
    assert FLAG.schema() == {"type": "boolean"}
    assert BY_NAME["scale"].parameters[0].schema() == {"type": "integer", "format": "int64", "minimum": 1}
    assert BY_NAME["rollout"].parameters[0].schema() == {"type": "integer", "format": "int64"}


@pytest.mark.parametrize(
    ("name", "query", "says"),
    [
        ("reload", {"wait": ["soon"]}, r"wait=soon: it is 'true' or 'drained' \(true: answer at the cut-over"),
        ("reload", {"wiat": ["true"]}, r"POST /v1/reload takes no parameter 'wiat' \(it takes 'wait'\)"),
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


@pytest.mark.parametrize("said", ["1.0", "0.9", version()])
def test_a_client_that_is_no_newer_is_spoken_with(said: str) -> None:
    """Its version, or an older one."""
    check_version(said, "0.1.0")


@pytest.mark.parametrize("said", ["1.1", "2.0"])
def test_a_client_that_is_too_new_is_told_both_versions(said: str) -> None:
    """And what to do."""
    with pytest.raises(Refused, match=rf"API {said}, .*stillup 0\.1\.0\) API 1\.0 at most.*reexec") as caught:
        check_version(said, "0.1.0")
    assert caught.value.code == "client-too-new"


@pytest.mark.parametrize("said", ["", "new", "1", "1.0.0", "9" * 5000 + ".1", "\u0661.0"])
def test_what_is_no_version(said: str) -> None:
    """It is said how one looks."""
    with pytest.raises(UsageError, match="is no version"):
        check_version(said, "0.1.0")


def test_a_path_of_the_next_api() -> None:
    """It is refused by its version; any other unknown path by its name, which is not this table's."""
    for path in ("/v2/status", "/v17"):
        with pytest.raises(Refused, match="at most"):
            check_path(path, "0.1.0")
    for path in ("/v1/nope", "/nope", "/v1", "/vx/status", "/", "/v0/status"):
        check_path(path, "0.1.0")


def test_every_kind_of_event_is_in_the_document() -> None:
    """Each with its own shape, which says in words what has happened."""
    content = described(BY_NAME["events"])["responses"]["200"]["content"]
    assert set(content) == {"application/x-ndjson", "text/event-stream"}
    kinds = content["application/x-ndjson"]["schema"]["discriminator"]["mapping"]
    assert kinds.keys() == KINDS.keys()
    for kind, reference in kinds.items():
        shape = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
        assert shape["description"], kind
        assert {"kind", "seq", "at", "monotonic", "text"} <= set(shape["required"])
