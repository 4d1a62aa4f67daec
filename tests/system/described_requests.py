"""Requests over a control socket, made up by schemathesis or described; each answer is held to the document.

Its import takes half a second: who needs it imports this where it is needed.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from requests.adapters import HTTPAdapter
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from stillup import __version__
from stillup.core.policy import MOST_WORKERS
from stillup.wire.api_operation import Operation
from stillup.wire.openapi import openapi
from tests.system.harness import Service
from tests.system.other_user import being

URL = "http://localhost"
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


class _Connection(HTTPConnection):
    def __init__(self, path: str, uid: int) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path
        self._uid = uid

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(30)
        with being(self._uid):
            sock.connect(self._path)
        self.sock = sock


class _Pool(HTTPConnectionPool):
    def __init__(self, path: str, uid: int) -> None:
        super().__init__("localhost")
        self._path = path
        self._uid = uid

    def _new_conn(self) -> Any:
        return _Connection(self._path, self._uid)


class _Adapter(HTTPAdapter):
    """Requests over a Unix socket, by some user."""

    def __init__(self, path: str, uid: int) -> None:
        self._pool = _Pool(path, uid)
        super().__init__()

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()


@contextlib.contextmanager
def session_of(service: Service, uid: int) -> Iterator[requests.Session]:
    """Requests to a service, by some user."""
    with requests.Session() as session:
        session.trust_env = False
        session.mount(URL, _Adapter(f"{service.runtime}/control.sock", uid))
        yield session


def ask(case: Any, session: requests.Session) -> requests.Response:
    """Ask, and hold the answer to the document."""
    response: requests.Response = case.call(base_url=URL, session=session)
    assert response.status_code != 500
    case.validate_response(response, checks=CHECKS)
    return response


def described(operation: Operation) -> Any:
    """What the document says of it."""
    return schemathesis.openapi.from_dict(openapi(__version__))[operation.path][operation.method]


def make_up(operation: Operation, session: requests.Session, examples: int, *, well: bool) -> None:
    """Ask so often, well or badly."""
    mode = GenerationMode.POSITIVE if well else GenerationMode.NEGATIVE

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=described(operation).as_strategy(generation_mode=mode))
    def asked(case: Any) -> None:
        _tame(case)
        ask(case, session)

    asked()


def _tame(case: Any) -> None:
    """Ask for no more workers than this machine can bear, nor for an answer without end."""
    query = case.query
    if _text(query.get("workers")).isdecimal() and 2 < int(_text(query["workers"])) <= MOST_WORKERS:
        query["workers"] = 2
    if _text(query.get("follow")) == "true":
        query["follow"] = "false"
    if _text(query.get("strategy")) == "canary":
        query.pop("wait", None)  # until it was watched


def _text(value: object) -> str:
    """As it will stand in the query, given once."""
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    return str(one).lower()
