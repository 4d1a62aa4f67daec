"""The list of laws in docs/architecture.md and the tests of them agree."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
LIST: Final = HERE.parents[1] / "docs" / "architecture.md"
ROW: Final = re.compile(r"^\| (\d+) \| ([^|]+) \| [^|]+ \| `(\w+\.py)` `([\w.]+)` \|$", re.MULTILINE)
CITED: Final = re.compile(r"Law (\d+), ([^:]+):")


def listed() -> list[tuple[int, str, str]]:
    """Of each law in the list its number, its name and its test, as ``file.py Class.method``."""
    _, _, section = LIST.read_text(encoding="utf-8").partition("\n## Laws\n")
    rows = ROW.findall(section.partition("\n## ")[0])
    return [(int(number), name, f"{file} {test}") for number, name, file, test in rows]


def cited() -> dict[str, tuple[int, str]]:
    """Of each function below this folder whose docstring begins with a law, that law's number and name."""
    found = {}
    for file in HERE.glob("*.py"):
        for holder in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for node in getattr(holder, "body", ()) if isinstance(holder, ast.ClassDef | ast.Module) else ():
                said = CITED.match(ast.get_docstring(node) or "") if isinstance(node, ast.FunctionDef) else None
                if said is not None and isinstance(node, ast.FunctionDef):
                    prefix = f"{holder.name}." if isinstance(holder, ast.ClassDef) else ""
                    found[f"{file.name} {prefix}{node.name}"] = (int(said[1]), said[2])
    return found


def test_the_laws_are_numbered_in_their_order() -> None:
    """The list has each number once, from 1 on, and each name once."""
    laws = listed()
    assert [number for number, _, _ in laws] == list(range(1, len(laws) + 1))
    assert len({name for _, name, _ in laws}) == len(laws) > 0


def test_each_law_has_its_test_and_each_test_its_law() -> None:
    """The test that a law names is there and cites its number and name; no test cites a law that is not listed."""
    assert {test: (number, name) for number, name, test in listed()} == cited()
