"""The control API against its own document: schemathesis makes up requests, the real socket answers them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from stillup.wire.api_operation import Operation
from stillup.wire.operations import OPERATIONS
from tests.system.harness import FULL, Service
from tests.system.other_user import NOBODY, let_through, open_folder

pytestmark = pytest.mark.xdist_group("schemathesis")

ENDLESS = ("trace",)
"""What is answered until the caller leaves has tests of its own."""
FINAL = ("stop", "reexec")
"""What ends the service, or replaces its supervisor: made up for a stranger only, and done once, at the end."""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with open_folder() as folder:
        service = Service(folder, "main:app", "--probation", "0")  # which is waited for, where that is made up
        service.write()
        with service:
            let_through(service)
            yield service


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.name not in ENDLESS], ids=lambda one: one.name)
def test_every_answer_is_in_the_document(service: Service, operation: Operation) -> None:
    """Whatever is asked, well or badly, the answer's status, headers, type and shape are documented, and never 500."""
    from tests.system.described_requests import ask, described, make_up, session_of  # noqa: PLC0415 - see there

    uid = os.geteuid()
    if operation.name in FINAL:
        if uid != 0:
            pytest.skip("needs root to become somebody who may not")
        uid = NOBODY
    with session_of(service, uid) as session:
        make_up(operation, session, 80 if FULL else 6, well=True)
        if operation.parameters:
            make_up(operation, session, 250 if FULL else 15, well=False)
        else:
            assert ask(described(operation).Case(query={"nosuch": "1"}), session).status_code in (400, 403)


def test_the_final_ones_too(service: Service) -> None:
    """The answers to a re-exec and a stop that are carried out are in the document."""
    from tests.system.described_requests import ask, described, session_of  # noqa: PLC0415 - see there

    by_name = {operation.name: operation for operation in OPERATIONS}
    with session_of(service, os.geteuid()) as session:
        assert ask(described(by_name["reexec"]).Case(), session).status_code == 202
    service.reexecuted(1)
    with session_of(service, os.geteuid()) as session:
        assert ask(described(by_name["stop"]).Case(), session).status_code == 202
    service.process.wait(30)
