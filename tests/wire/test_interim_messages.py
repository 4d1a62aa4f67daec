"""What an interim server answers, and what it leaves to the program that comes."""

from __future__ import annotations

import pytest

from stillup.core.access import Role, Rules
from stillup.errors import PeerError
from stillup.wire import interim_messages
from stillup.wire.interim_messages import InterimAnswers, InterimOrders, answer_to

ANSWER = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
ANSWERS = InterimAnswers({"/readyz": ANSWER})


@pytest.mark.parametrize(
    "head",
    [
        b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /readyz HTTP/1.0\r\n\r\n",
        b"GET /readyz HTTP/1.0\r\nHost: x\r\nUser-Agent: HAProxy\r\n\r\n",
    ],
)
def test_a_probe_is_answered(head: bytes) -> None:
    """Such as balancers and curl send it."""
    assert answer_to(head, ANSWERS) == ANSWER.encode()


def test_a_head_without_its_body() -> None:
    """HAProxy may ask so: the answer is the same without a body."""
    assert answer_to(b"HEAD /readyz HTTP/1.0\r\n\r\n", ANSWERS) == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET /readyz HTTP/1.1\r\nHost: x\r\n",
        b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /readyz?x=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /readyz HTTP/2.0\r\nHost: x\r\n\r\n",
        b"POST /readyz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET  /readyz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\nHost: x\r\nStillup-API: 99.0\r\n\r\n",
    ],
)
def test_what_is_more_or_less_than_a_probe_is_left(head: bytes) -> None:
    """The new program reads it, with all its rules."""
    assert answer_to(head, ANSWERS) is None


def test_its_words_are_read_back() -> None:
    """Roles too; and what is no word of them is refused, be it of another version."""
    rules = {"control.sock": Rules(uids={7: Role.VIEWER}, gids={8: Role.ADMIN})}
    orders = InterimOrders(["control.sock"], rules, 0, [12], [0, 5], "/run/x/handoff.sock")
    assert interim_messages.decode_orders(interim_messages.encode(orders)) == orders
    assert interim_messages.decode_answers(interim_messages.encode(ANSWERS)) == ANSWERS
    with pytest.raises(PeerError):
        interim_messages.decode_answers(interim_messages.encode(orders))
