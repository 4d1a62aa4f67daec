"""The OpenAPI document has everything that is in the table."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from stillup.wire.api_operation import Operation
from stillup.wire.api_shapes import Problem
from stillup.wire.api_version import API_HEADER
from stillup.wire.event_feed import KINDS
from stillup.wire.openapi import openapi
from stillup.wire.operations import OPERATIONS
from stillup.wire.problem_types import ANYWHERE, PROBLEM, PROBLEM_TYPES

DOCUMENT = json.loads(msgspec.json.encode(openapi("0.1.0")))
BY_NAME = {operation.name: operation for operation in OPERATIONS}


def described(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][operation.path][operation.method.lower()]
    return found


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_the_document_has_every_row(operation: Operation) -> None:
    """With its role, its parameters and every answer, each with the version's header."""
    found = described(operation)
    assert (found["operationId"], found["x-stillup-role"]) == (operation.name, operation.role)
    assert [one["name"] for one in found["parameters"]] == [one.name for one in operation.parameters]
    refusals = {str(PROBLEM_TYPES[code].status) for code in (*ANYWHERE, *operation.problems)}
    assert set(found["responses"]) == {*map(str, operation.answers), *refusals}
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
