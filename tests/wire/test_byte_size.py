"""Sizes of memory, read and shown."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.errors import UsageError
from stillup.wire.byte_size import MOST, parse_percentage, parse_size, show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("536870912", 512 << 20),
        ("1K", 1024),
        ("512M", 512 << 20),
        ("512m", 512 << 20),
        (" 2G ", 2 << 30),
        ("1.5G", 1536 << 20),
        ("0.5K", 512),
        (str(MOST), MOST),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    """Bytes, or a number of 1024, 1024^2 or 1024^3 bytes; large and small letters mean the same."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "-1M", "+5", "five", "5T", "5 M", "512MB", "1e9", "nan", "inf", "1_000", "1.M", ".5G", "٣"]
)
def test_what_is_no_size(text: str) -> None:
    """Anything else is refused with the way to write it."""
    with pytest.raises(UsageError, match=r"is no size: write bytes, or a number with K, M or G, such as 512M"):
        parse_size(text)


@pytest.mark.parametrize("text", ["0", "0M", "0.0001K", "1048577G", str(MOST + 1000)])
def test_what_no_memory_has(text: str) -> None:
    """Nothing at all is no limit, and neither is more than a machine could have."""
    with pytest.raises(UsageError, match="is no size that memory can have"):
        parse_size(text)


@given(text=st.text(max_size=30))
def test_any_text_is_a_size_or_a_mistake(text: str) -> None:
    """Whatever is written, it is a size or the user's error."""
    with contextlib.suppress(UsageError):
        assert 1 <= parse_size(text) <= MOST


@given(size=st.integers(1, MOST))
def test_bytes_are_bytes(size: int) -> None:
    """A number without a letter is taken to the byte."""
    assert parse_size(str(size)) == size


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (512, "512 bytes"),
        (9 << 10, "9216 bytes"),
        (10 << 10, "10 KB"),
        (530 << 20, "530 MB"),
        (1536 << 20, "1536 MB"),
        (64 << 30, "64 GB"),
    ],
)
def test_a_size_is_shown(size: int, shown: str) -> None:
    """A size is shown in the largest unit of which it has ten."""
    assert show_size(size) == shown


@pytest.mark.parametrize(
    ("text", "percent"),
    [("80%", 80), (" 1% ", 1), ("100%", 100), ("101%", None), ("0%", None), ("8.5%", None), ("80", None), ("%", None)],
)
def test_percentages(text: str, percent: int | None) -> None:
    """Whole ones, of something that there is."""
    assert parse_percentage(text) == percent
