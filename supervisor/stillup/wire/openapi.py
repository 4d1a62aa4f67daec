"""The document at ``/v1/openapi.json``, made of the table of operations (OpenAPI 3.1, JSON Schema 2020-12)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from stillup.wire.api_operation import ApiSocket, Operation, ResponseShape
from stillup.wire.api_shapes import Problem
from stillup.wire.api_version import API_HEADER, version
from stillup.wire.operations import OPERATIONS
from stillup.wire.problem_types import ANYWHERE, PROBLEM, PROBLEM_TYPES


def openapi(supervisor: str) -> dict[str, Any]:
    """The table as an OpenAPI 3.1 document; ``supervisor`` is the version of stillup that answers."""
    shapes = [shape for operation in OPERATIONS for answer in operation.answers.values() for shape in _shapes(answer)]
    schemas, components = msgspec.json.schema_components([*shapes, Problem], ref_template="#/components/schemas/{name}")
    found = dict(zip(map(repr, [*shapes, Problem]), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, found)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "stillup",
            "version": version(),
            "summary": "The control API of a stillup supervisor.",
            "description": f"Served by stillup {supervisor} over Unix sockets; who calls is known by the kernel's "
            "word, so there is no authentication to send.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "http://localhost"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _shapes(answer: ResponseShape) -> Iterator[Any]:
    return (shape for shape in answer.shape.values() if shape is not None)


def _described(operation: Operation, schemas: Mapping[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    header = {API_HEADER: {"description": "The API that answers.", "schema": {"type": "string"}, "required": True}}
    for status, answer in operation.answers.items():
        headers = dict(header)
        if answer.location:
            headers["Location"] = {
                "description": f"Where to find {answer.location}.",
                "schema": {"type": "string"},
                "required": True,
            }
        content = {
            media: {"schema": schemas[repr(shape)] if shape is not None else {"type": "string"}}
            for media, shape in answer.shape.items()
        }
        responses[str(status)] = {"description": answer.what, "headers": headers, "content": content}
    for status, codes in _problems(operation).items():
        responses[str(status)] = {
            "description": f"Problem: {', '.join(codes)}.",
            "headers": header,
            "content": {PROBLEM: {"schema": schemas[repr(Problem)]}},
        }
    at = ", ".join(one for one in ApiSocket if one in operation.sockets)
    return {
        "operationId": operation.name,
        "summary": operation.what,
        "description": f"Role: {operation.role}. At: {at}.",
        "x-stillup-role": operation.role,
        "parameters": [
            {
                "name": parameter.name,
                "in": parameter.place,
                "required": parameter.required,
                "description": parameter.what,
                "schema": parameter.schema(),
            }
            for parameter in operation.parameters
        ],
        "responses": responses,
    }


def _problems(operation: Operation) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for code in dict.fromkeys((*ANYWHERE, *operation.problems)):
        found.setdefault(PROBLEM_TYPES[code].status, []).append(code)
    return found
