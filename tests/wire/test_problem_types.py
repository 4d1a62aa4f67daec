"""Every type of problem is in one table, which the package and the page of errors agree with."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import stillup
from stillup.wire import problem_types
from stillup.wire.operations import OPERATIONS
from stillup.wire.problem_types import ANYWHERE, PROBLEM_TYPES

PACKAGE = Path(stillup.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
ANSWERS = ("problem", "_refuse")
"""Functions whose first argument is a code."""


def strings(node: ast.AST) -> Iterator[str]:
    """Every string below a node."""
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value


def codes(node: ast.AST) -> Iterator[str]:
    """The codes that a statement or an expression refuses with."""
    match node:
        case ast.Call(func=function, args=args, keywords=keywords):
            for keyword in keywords:
                if keyword.arg == "code":
                    yield from strings(keyword.value)
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if name in ANSWERS and args:
                yield from strings(args[0])
        case ast.Assign(targets=[ast.Name(id="code")], value=value):
            yield from strings(value)


def raised() -> dict[str, Path]:
    """Every code that some line of the package refuses with, and a file where one does."""
    return {
        code: path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "problem_types.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for code in codes(node)
    }


def test_every_code_that_is_raised_is_in_the_table_and_every_row_is_used() -> None:
    """A new refusal needs a row, with its meaning and its remedy; a row that nothing raises is to go."""
    assert raised().keys() == PROBLEM_TYPES.keys(), raised()


def test_every_row_is_whole() -> None:
    """A code is a word that can be an anchor; each row has a status of an error, a meaning and a remedy."""
    for code, one in PROBLEM_TYPES.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
        assert one.status in range(400, 600)
        assert one.meaning.endswith(".")
        assert one.remedy.endswith(".")
        assert one.exit_code in (1, 2, 4, 5)
        assert (one.urn, one.help) == (f"urn:stillup:problem:{code}", f"docs/errors.md#{code}")
        assert one.title.replace(" ", "-") == code


def test_the_operations_answer_with_problems_of_the_table() -> None:
    """What the API's description lists is in the table."""
    listed = {code for one in OPERATIONS for code in one.problems} | set(ANYWHERE)
    assert listed <= PROBLEM_TYPES.keys()


def test_the_page_is_made_of_the_table() -> None:
    """docs/errors.md is what the table says: ``python -m stillup.wire.problem_types > docs/errors.md``."""
    assert PAGE.read_text(encoding="utf-8") == problem_types.page()


def test_the_page_has_an_anchor_for_every_type() -> None:
    """The link in a problem document leads to a heading of its own."""
    headings = re.findall(r"^## (.*)$", problem_types.page(), re.MULTILINE)
    assert headings == list(PROBLEM_TYPES)
