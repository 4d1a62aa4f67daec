"""What of a message may be shown."""

from __future__ import annotations

import typing

import pytest

from supervisor.errors import PeerError
from supervisor.wire import handoff, trace
from supervisor.wire.handoff import Accept, Hello, ListenerInfo, Resume, Taken, Welcome
from supervisor.wire.trace import SHOWN, TracedMessage, TraceGap

MESSAGES = {
    kind.__name__: kind for kind in (*typing.get_args(handoff.FromWorker), *typing.get_args(handoff.FromSupervisor))
}
WELCOME = Welcome(
    handoff.PROTOCOL,
    1,
    2,
    "main:app",
    "/srv",
    "/srv",
    {"headers": [["x-token", "s3cret"]]},
    drain_timeout=1.0,
    boot_timeout=2.0,
    health_path="/healthz?token=s3cret",
)


def test_no_secret_is_among_what_is_shown() -> None:
    """What is shown stands in a list of its own, field by field, and no secret is in it."""
    for name, fields in SHOWN.items():
        assert set(fields) <= set(MESSAGES[name].__struct_fields__), name
        assert not {"nonce", "options", "welcome", "health_path", "environment"} & set(fields), name


@pytest.mark.parametrize(
    ("direction", "message", "fields"),
    [
        ("in", Hello(2, "s3cret"), {"protocol": 2}),
        ("in", Taken(3), {"count": 3}),
        ("out", Accept(), {}),
        (
            "in",
            Resume(2, "s3cret", draining=False, welcome=WELCOME, listeners=[ListenerInfo("web", 2, "a")], queue=(1, 2)),
            {"protocol": 2, "draining": False, "listeners": [{"name": "web", "family": 2, "address": "a"}]},
        ),
        ("out", WELCOME, {"worker": 1, "generation": 2, "app": "main:app", "drain_timeout": 1.0, "max_age": None}),
    ],
)
def test_messages(
    direction: str, message: handoff.FromWorker | handoff.FromSupervisor, fields: dict[str, object]
) -> None:
    """A message is shown by its name and those fields; its nonce and options are not."""
    kind, shown = trace.handoff_message(direction, handoff.encode(message))
    assert kind == type(message).__name__
    assert shown.items() >= fields.items()
    assert shown.keys() == set(SHOWN[kind])
    line = trace.encode(TracedMessage(1.5, "handoff", direction, 1, 2, "", kind, 3, shown, []))
    assert b"s3cret" not in line


def test_what_is_no_message() -> None:
    """The end of a channel has a name, and so has what is no message; its text is not shown."""
    assert trace.handoff_message("in", b"") == ("end", {})
    assert trace.handoff_message("in", b'{"type":"Hello","nonce":"s3cret"') == ("garbled", {})
    assert trace.handoff_message("in", handoff.encode(Accept())) == ("garbled", {})


def test_a_message_that_is_new_is_named_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A type of message that nobody has thought about here shows none of its fields."""
    monkeypatch.delitem(SHOWN, "Taken")
    assert trace.handoff_message("in", handoff.encode(Taken(3))) == ("Taken", {})


def test_lines() -> None:
    """A line reads back as what it was; what is none is the peer's error."""
    for line in (TraceGap(7), TracedMessage(1.5, "control", "in", 1, 2, "3.1", "request", None, {"a": 1}, ["pipe"])):
        encoded = trace.encode(line)
        assert encoded.endswith(b"}\n")
        assert trace.decode(encoded) == line
    for garbled in (b"", b"{}\n", b'{"kind":"else"}', b"\xff"):
        with pytest.raises(PeerError, match="not a line of a trace"):
            trace.decode(garbled)
