"""Whom a rule is about, as it is written."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.errors import UsageError
from stillup.wire.role_rules import LARGEST, UserOrGroup, check_number, parse_number, parse_user_or_group


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("uid:1000", UserOrGroup(group=False, number=1000)),
        ("uid:0", UserOrGroup(group=False, number=0)),
        (f"gid:{LARGEST}", UserOrGroup(group=True, number=LARGEST)),
        ("user:alice", UserOrGroup(group=False, name="alice")),
        ("group:www-data", UserOrGroup(group=True, name="www-data")),
        ("user:EXAMPLE\\alice smith", UserOrGroup(group=False, name="EXAMPLE\\alice smith")),
    ],
)
def test_subjects(text: str, subject: UserOrGroup) -> None:
    """A number or a name of a user or a group; a directory's names may have spaces."""
    assert parse_user_or_group(text, "--viewer") == subject


@pytest.mark.parametrize("text", ["", "alice", "1000", "user:", "group:", "who:me", "uid", "user:a\0b"])
def test_nobody(text: str) -> None:
    """Anything else is refused, with what one looks like."""
    with pytest.raises(UsageError, match=r"it is uid:1000, gid:33|from 0 to"):
        parse_user_or_group(text, "--viewer")


@pytest.mark.parametrize("text", ["-1", "+1", "1_0", " 1", "", str(2**32 - 1), "9" * 5000, "\u0661", "x"])
def test_no_number(text: str) -> None:
    """What is no uid is refused, the one that means 'none' to the kernel too, and however long it is."""
    assert parse_number(text) is None
    with pytest.raises(UsageError, match=f"from 0 to {LARGEST}"):
        parse_user_or_group(f"uid:{text}", "--admin")


@pytest.mark.parametrize("kind", ["uid", "gid"])
def test_the_overflow_number(kind: str) -> None:
    """No rule can be about the number that stands for every user that is not known."""
    with pytest.raises(UsageError, match=f"--admin {kind}:65534: 65534 is what the kernel shows for a user that"):
        parse_user_or_group(f"{kind}:65534", "--admin")
    with pytest.raises(UsageError, match="no rule can be about it"):
        check_number(65534, "user:nobody", "--admin")


@given(st.text())
def test_any_text(text: str) -> None:
    """Whatever is written, it is a subject or a refusal."""
    with contextlib.suppress(UsageError):
        subject = parse_user_or_group(text, "--viewer")
        assert (subject.number is None) is bool(subject.name)
