"""The control API against its own document: schemathesis makes up requests, the real socket answers them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
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
from stillup.wire.operations import OPERATIONS
from tests.system.harness import FULL, Service
from tests.system.other_user import NOBODY, being, let_through, open_folder

pytestmark = pytest.mark.xdist_group("schemathesis")

URL = "http://localhost"
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
ENDLESS = ("trace",)
"""What is answered until the caller leaves has tests of its own."""
FINAL = ("stop", "reexec")
"""What ends the service, or replaces its supervisor: made up for a stranger only, and done once, at the end."""


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


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with open_folder() as folder:
        service = Service(folder, "main:app", "--probation", "0")  # which is waited for, where that is made up
        service.write()
        with service:
            let_through(service)
            yield service


@contextlib.contextmanager
def _session(service: Service, uid: int) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.mount(URL, _Adapter(f"{service.runtime}/control.sock", uid))
        yield session


def _ask(case: Any, session: requests.Session) -> requests.Response:
    """Ask, and hold the answer to the document."""
    response: requests.Response = case.call(base_url=URL, session=session)
    assert response.status_code != 500
    case.validate_response(response, checks=CHECKS)
    return response


def _described(operation: Operation) -> Any:
    return schemathesis.openapi.from_dict(openapi(__version__))[operation.path][operation.method]


def _make_up(operation: Operation, mode: GenerationMode, session: requests.Session, examples: int) -> None:
    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=_described(operation).as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        _tame(case)
        _ask(case, session)

    ask()


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


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.name not in ENDLESS], ids=lambda one: one.name)
def test_every_answer_is_in_the_document(service: Service, operation: Operation) -> None:
    """Whatever is asked, well or badly, the answer's status, headers, type and shape are documented, and never 500."""
    uid = os.geteuid()
    if operation.name in FINAL:
        if uid != 0:
            pytest.skip("needs root to become somebody who may not")
        uid = NOBODY
    with _session(service, uid) as session:
        _make_up(operation, GenerationMode.POSITIVE, session, 80 if FULL else 6)
        if operation.parameters:
            _make_up(operation, GenerationMode.NEGATIVE, session, 250 if FULL else 15)
        else:
            assert _ask(_described(operation).Case(query={"nosuch": "1"}), session).status_code in (400, 403)


def test_the_final_ones_too(service: Service) -> None:
    """The answers to a re-exec and a stop that are carried out are in the document."""
    by_name = {operation.name: operation for operation in OPERATIONS}
    with _session(service, os.geteuid()) as session:
        assert _ask(_described(by_name["reexec"]).Case(), session).status_code == 202
    service.reexecuted(1)
    with _session(service, os.geteuid()) as session:
        assert _ask(_described(by_name["stop"]).Case(), session).status_code == 202
    service.process.wait(30)
