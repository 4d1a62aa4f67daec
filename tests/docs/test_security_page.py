"""docs/security.md: each test that it names is there, and each of its tables says which test holds what it says."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([a-z_/]+\.py)(?:::(\w+))?`", PAGE)))


def test_it_names_tests() -> None:
    """What is looked for below is written as the page writes it."""
    assert len(NAMED) > 50


def test_every_test_that_is_named_is_there() -> None:
    """The file, and in it the function; a file without one has some test."""
    for file, name in NAMED:
        path = ROOT / "tests" / file
        assert path.is_file(), file
        found = _functions(path)
        assert name in found if name else any(one.startswith("test_") for one in found), f"{file}::{name}"


@cache
def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_line_is_held() -> None:
    """In a table with the column, no row leaves it out."""
    empty = []
    held = 0
    for line in PAGE.splitlines():
        if not line.startswith("|"):
            held = 0
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells[-1] == "held by":
            held = len(cells)
        elif held and not line.startswith("|---") and (len(cells) != held or ".py" not in cells[-1]):
            empty.append(line)
    assert empty == []
