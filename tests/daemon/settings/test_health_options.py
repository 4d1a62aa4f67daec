"""What is asked of a new worker, and which answers are healthy, as it is configured."""

from __future__ import annotations

from typing import Any

import click
import pytest

from stillup.daemon.settings.health_options import Header, StatusRanges


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("200", ((200, 200),)),
        ("200-399", ((200, 399),)),
        ("200-299, 401", ((200, 299), (401, 401))),
        (204, ((204, 204),)),
    ],
)
def test_statuses(text: Any, ranges: Any) -> None:
    """Statuses and ranges, as text or, in a file, as a number; what was read once can be read again."""
    kind = StatusRanges()
    assert kind.convert(text, None, None) == ranges
    assert kind.convert(ranges, None, None) == ranges


@pytest.mark.parametrize("text", ["", "2", "2xx", "399-200", "99", "1000", "200-", "200;300", "200-300-400"])
def test_no_statuses(text: str) -> None:
    """Anything else is named."""
    with pytest.raises(click.BadParameter, match=r"such as 204 or 200-399"):
        StatusRanges().convert(text, None, None)


@pytest.mark.parametrize(
    "text", ["X-Forwarded-Proto: https", "x-forwarded-proto:https", " X-Forwarded-Proto :\thttps "]
)
def test_header(text: str) -> None:
    """A name, a colon and a value; blanks around both mean nothing."""
    name, value = Header().convert(text, None, None)
    assert (name.lower(), value) == ("x-forwarded-proto", "https")


@pytest.mark.parametrize(
    "text", ["https", ": https", "X Y: secret", "X: secret\r\nY: z", "X: \u20ac secret", "X: \0secret"]
)
def test_no_header(text: str) -> None:
    """Anything else is refused without a word of it, since it may be a token."""
    with pytest.raises(click.BadParameter, match="such as 'X-Forwarded-Proto: https'") as caught:
        Header().convert(text, None, None)
    assert "secret" not in str(caught.value)


def test_headers_in_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line is one, since a value may have blanks."""
    monkeypatch.setenv("HEADERS", "Authorization: Bearer secret\nX-Forwarded-Proto: https")
    option = click.Option(["--header"], type=Header(), multiple=True, envvar="HEADERS")
    values = option.type_cast_value(
        click.Context(click.Command("x")), option.value_from_envvar(click.Context(click.Command("x")))
    )
    assert values == (("Authorization", "Bearer secret"), ("X-Forwarded-Proto", "https"))
