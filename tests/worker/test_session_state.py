"""The state of a session as it travels: whatever the worker before has left, it is read or it is nothing."""

from __future__ import annotations

import pytest

from stillup.worker.session_state import packed, unpacked


def test_it_arrives() -> None:
    """With the version of its shape."""
    assert unpacked(packed({"members": ["a", "\N{SNOWMAN}"]}, 3)) == {
        "version": 3,
        "state": {"members": ["a", "\N{SNOWMAN}"]},
    }


@pytest.mark.parametrize(
    "left",
    [b"", b"\xff", b"[1]", b"[" * 100_000, b'{"state":' * 100_000],
    ids=["none", "bytes", "a list", "deep", "nested"],
)
def test_what_is_none_of_ours(left: bytes) -> None:
    """Neither an app's own form nor what nobody could read ends the session's task."""
    assert unpacked(left) == {}


@pytest.mark.parametrize("depth", [0, 100_000])
def test_a_state_that_is_no_json(depth: int) -> None:
    """Whoever has made it is told, and how deeply it is nested makes no difference."""
    state: object = object()
    for _ in range(depth):
        state = [state]
    with pytest.raises(TypeError, match="has to be JSON"):
        packed(state, 1)
    while isinstance(state, list):  # else freeing it goes as deep
        state = state.pop()
