"""How it reads who is waited for."""

from __future__ import annotations

from stillup.wire.waiting_line import waiting_line


def test_each_kind_with_its_workers() -> None:
    """What people wait for first: requests, streams, WebSockets; the rest are connections."""
    classes = {
        "1.1": {"in-progress": 2, "idle": 1, "unread": 1},
        "1.2": {"websocket": 1, "in-progress": 1, "stream": 0},
    }
    said = "waiting for 3 requests (1.1, 1.2), 1 WebSocket (1.2), 2 connections (1.1); at most 28 s"
    assert waiting_line(classes, 28.2) == said


def test_an_app_that_shuts_down() -> None:
    """Nothing is left but its own end."""
    assert waiting_line({"1.1": {}}, 3.0) == "waiting for 1.1 to shut the app down"


def test_many_workers() -> None:
    """Not every name is of use."""
    classes = {f"1.{slot}": {"stream": 1} for slot in range(1, 9)}
    assert waiting_line(classes, None) == "waiting for 8 streams (8 workers)"
