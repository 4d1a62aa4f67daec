"""What of a message may be shown."""

from __future__ import annotations

import typing

import pytest

from stillup.core.worker_figures import WorkerFigures
from stillup.core.worker_settings import WorkerSettings
from stillup.errors import PeerError
from stillup.wire import handoff_messages, trace_messages
from stillup.wire.handoff_messages import Accept, Hello, ListenerInfo, Report, Resume, Taken, Welcome
from stillup.wire.trace_messages import SHOWN, TracedMessage, TraceGap

MESSAGES = {
    kind.__name__: kind
    for kind in (*typing.get_args(handoff_messages.FromWorker), *typing.get_args(handoff_messages.FromSupervisor))
}
WELCOME = Welcome(
    handoff_messages.PROTOCOL,
    1,
    2,
    "main:app",
    "/srv",
    "/srv",
    {"headers": [["x-token", "s3cret"]]},
    drain_timeout=1.0,
    boot_timeout=2.0,
    settings=WorkerSettings(health_path="/healthz?token=s3cret"),
)


def test_no_secret_is_among_what_is_shown() -> None:
    """What is shown stands in a list of its own, field by field, and no secret is in it."""
    for name, fields in SHOWN.items():
        assert {path.partition(".")[0] for path in fields} <= set(MESSAGES[name].__struct_fields__), name
        assert not {"nonce", "options", "welcome", "settings", "settings.*", "settings.health_path"} & set(fields), name


@pytest.mark.parametrize(
    ("direction", "message", "fields"),
    [
        ("in", Hello(2, "s3cret"), {"protocol": 2}),
        ("in", Taken(3), {"count": 3}),
        ("in", Report(WorkerFigures({"idle": 2}, 7), "age"), {"classes": {"idle": 2}, "requests": 7, "recycle": "age"}),
        ("out", Accept(), {}),
        (
            "in",
            Resume(2, "s3cret", draining=False, welcome=WELCOME, listeners=[ListenerInfo("web", 2, "a")], queue=(1, 2)),
            {"protocol": 2, "draining": False, "listeners": [{"name": "web", "family": 2, "address": "a"}]},
        ),
        (
            "out",
            WELCOME,
            {"worker": 1, "generation": 2, "app": "main:app", "drain_timeout": 1.0, "max_worker_age": None},
        ),
    ],
)
def test_messages(
    direction: str, message: handoff_messages.FromWorker | handoff_messages.FromSupervisor, fields: dict[str, object]
) -> None:
    """A message is shown by its name and those fields; its nonce and options are not."""
    kind, shown = trace_messages.handoff_message(direction, handoff_messages.encode(message))
    assert kind == type(message).__name__
    assert shown.items() >= fields.items()
    assert "health_path" not in shown
    line = trace_messages.encode(TracedMessage(1.5, "handoff", direction, 1, 2, "", kind, 3, shown, []))
    assert b"s3cret" not in line


def test_what_is_no_message() -> None:
    """The end of a channel has a name, and so has what is no message; its text is not shown."""
    assert trace_messages.handoff_message("in", b"") == ("end", {})
    assert trace_messages.handoff_message("in", b'{"type":"Hello","nonce":"s3cret"') == ("garbled", {})
    assert trace_messages.handoff_message("in", handoff_messages.encode(Accept())) == ("garbled", {})


def test_a_message_that_is_new_is_named_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A type of message that nobody has thought about here shows none of its fields."""
    monkeypatch.delitem(SHOWN, "Taken")
    assert trace_messages.handoff_message("in", handoff_messages.encode(Taken(3))) == ("Taken", {})


def test_lines() -> None:
    """A line reads back as what it was; what is none is the peer's error."""
    for line in (TraceGap(7), TracedMessage(1.5, "control", "in", 1, 2, "3.1", "request", None, {"a": 1}, ["pipe"])):
        encoded = trace_messages.encode(line)
        assert encoded.endswith(b"}\n")
        assert trace_messages.decode(encoded) == line
    for garbled in (b"", b"{}\n", b'{"kind":"else"}', b"\xff"):
        with pytest.raises(PeerError, match="not a line of a trace"):
            trace_messages.decode(garbled)
