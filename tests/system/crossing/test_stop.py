"""A final stop while connections are on their way."""

from __future__ import annotations

import signal
from contextlib import ExitStack

import pytest

from tests.system.client_group import ClientGroup, frozen, until_waiting, worker_pids
from tests.system.clients import Answer, Ended
from tests.system.gated_service import Start, gone, reload
from tests.system.harness import DEADLINE, Service, eventually
from tests.system.mutations import READER_FIRST


def _stop_with_a_queue(service: Service, stack: ExitStack, *, everybody: bool = False) -> list[Answer | None]:
    """Stop while 200 connections with a request on each are in the queue; what became of those requests.

    With ``everybody`` each process is sent SIGTERM, as service managers do.
    """
    clients = ClientGroup(service, stack, 200)
    clients.begin("g")
    reload(service)
    with frozen(list(worker_pids(service).values())):
        clients.end("g")
        until_waiting(service, 200)
        gone(service)
        clients.ask()
        for process in service.family() if everybody else ():
            process.terminate()
        service.signal(signal.SIGTERM)
        eventually(lambda: service.status().state == "stopping", "it stops")
    answers: list[Answer | None] = []
    for peer in clients.peers:
        try:
            answers.append(peer.answer())
        except Ended:
            answers.append(None)
        else:
            assert peer.ends()
        peer.sock.close()
    assert service.process.wait(DEADLINE) == 0
    return answers


@pytest.mark.parametrize("everybody", [False, True], ids=["supervisor", "everybody"])
def test_a_stop_answers_what_is_in_the_queue(start: Start, stack: ExitStack, *, everybody: bool) -> None:
    """Requests that were sent by clients whose connections were in the queue at the final stop are answered.

    Whether SIGTERM comes to the supervisor alone, or to all its processes at the same time.
    """
    answers = _stop_with_a_queue(start(workers=2 if everybody else 1), stack, everybody=everybody)
    assert [answer for answer in answers if answer is None] == []
    assert all(answer is not None and answer.status == 200 and answer.closes for answer in answers)


def test_a_reader_that_leaves_too_early_is_found_out(start: Start, stack: ExitStack) -> None:
    """The same stop loses requests if the workers do not read the queue to its end."""
    answers = _stop_with_a_queue(start(workers=1, changes=[READER_FIRST]), stack)
    assert None in answers
