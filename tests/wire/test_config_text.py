"""The text of a configuration file, and what is said of it where a setting is wrong."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.errors import UsageError
from stillup.wire.config_text import ConfigText, parse, toml_line

FILE = """\
# workers = 9
app = "shop:app"
drain-timeout = 5
"name" = "shop"
"""


def _parsed(path: str, text: str) -> ConfigText:
    parsed = parse(path, text)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("app", "2"),
        ("drain-timeout", "3"),
        ("drain_timeout", "3"),
        ("name", "4"),
        ("workers", ""),
        ("dr.in-timeout", ""),
    ],
)
def test_where_a_key_stands(key: str, place: str) -> None:
    """It is named by file and line, in either spelling; by the file alone where it has no line of its own."""
    assert _parsed("/srv/stillup.toml", FILE).place(key) == "/srv/stillup.toml" + (f", line {place}" if place else "")


def test_a_word() -> None:
    """A text is given as it is, nothing for a key that is not there; anything else is refused, with its place."""
    file = _parsed("stillup.toml", "name = 'shop'\nruntime_dir = '/run/shop'\ndirectory = 3\n")
    assert file.word("name") == "shop"
    assert file.word("runtime-dir") == "/run/shop"
    assert file.word("app") is None
    with pytest.raises(UsageError, match=r"stillup\.toml, line 3: 'directory' is a text in quotes, not 3"):
        file.word("directory")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[tool.stillup]\nname = 'a'", {"name": "a"}),
        ("[tool.stillup]", None),
        ("[project]\nname = 'a'", None),
        ("tool = 3", None),
    ],
)
def test_a_projects_file(text: str, values: dict[str, str] | None) -> None:
    """Of a project's file ours is one table; without it the file says nothing to us."""
    parsed = parse("/srv/pyproject.toml", text)
    assert (parsed.values if parsed is not None else None) == values


@pytest.mark.parametrize(
    ("path", "text", "why"),
    [
        ("stillup.toml", "name = \n", "^stillup.toml: .*line 1"),
        ("pyproject.toml", "tool.stillup = 'a'", r"^pyproject.toml: \[tool.stillup\] is a table of settings, not 'a'"),
    ],
)
def test_what_is_no_configuration(path: str, text: str, why: str) -> None:
    """It is refused by the file's name."""
    with pytest.raises(UsageError, match=why):
        parse(path, text)


_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(-1e300, 1e300), _TEXTS, st.lists(_TEXTS)))
def test_a_line_means_its_value(value: bool | float | str | list[str]) -> None:
    """What is written for a value is read as that value."""
    assert tomllib.loads(toml_line("key", value)) == {"key": value}
