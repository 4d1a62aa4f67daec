"""The house: imports run one way, a name means one thing, and a file has one noun in it."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import stillup

ROOT = Path(__file__).parents[1]
PACKAGE = Path(stillup.__file__).parent
MOST_LINES = 400
RETIRED = {
    "beats",
    "strays",
    "seldom",
    "wear",
    "worn",
    "heir",
    "headline",
    "places",
    "lingering",
    "resting",
    "giving",
    "giver",
    "holder",
    "door",
    "kinds",
    "borrowed",
    "lull",
    "tally",
    "subjects",
    "bequest",
}
"""Names that were riddles."""
KEPT = {"lingering_close", "LingeringCloseTransport", "WorkerWorn"}
"""The field's own name for what nginx calls so, too; and the event of the API that is called ``worker.worn``."""
PRONOUN = re.compile(r"\b(?:he|his|him|himself)\b", re.IGNORECASE)


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _twice(names: Iterator[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def test_imports_run_one_way() -> None:
    """The contracts of import-linter in pyproject.toml hold: layers, purity of core and wire, what the client skips."""
    linter = Path(sys.executable).with_name("lint-imports")
    checked = subprocess.run([linter, "--no-cache"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_no_base_name_twice() -> None:
    """A module is known by its file's name alone, in whatever room it is."""
    assert _twice(file.stem for file in _modules() if not file.stem.startswith("__")) == []


def test_no_class_name_twice() -> None:
    """A class is known by its name alone."""
    trees = map(_tree, _modules())
    assert _twice(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)) == []


@pytest.mark.parametrize("folder", [PACKAGE, ROOT / "tests", ROOT / "benchmarks"], ids=lambda folder: folder.name)
def test_no_file_is_long(folder: Path) -> None:
    """What needs more than 400 lines has two nouns in it."""
    counts = {file: file.read_text(encoding="utf-8").count("\n") for file in folder.rglob("*.py")}
    assert {str(file.relative_to(folder)): count for file, count in counts.items() if count > MOST_LINES} == {}


def _words(name: str) -> set[str]:
    """What a name is made of, in either way of writing them together."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def _names() -> Iterator[tuple[Path, str]]:
    """Those of the modules, and of the classes and functions in them."""
    for file in _modules():
        yield file, file.stem
        for node in ast.walk(_tree(file)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield file, node.name


def test_no_retired_name() -> None:
    """Modules, classes and functions have the field's names."""
    found = [(file.name, name) for file, name in _names() if _words(name) & RETIRED and name not in KEPT]
    assert found == []


def _prose(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a module's docstrings and comments, if such a word stands anywhere in it."""
    source = file.read_text(encoding="utf-8")
    if not PRONOUN.search(source):  # most have none, and need not be taken apart
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        match node:
            # Docstrings, those of constants and fields too.
            case ast.Expr(ast.Constant(str(text))):
                yield from enumerate(text.splitlines(), node.lineno)


@pytest.mark.parametrize("folder", [PACKAGE, ROOT / "tests", ROOT / "benchmarks"], ids=lambda folder: folder.name)
def test_nobody_is_he(folder: Path) -> None:
    """Docstrings and comments speak of callers, clients and workers."""
    found = [
        f"{file.relative_to(folder)}:{line}: {text.strip()}"
        for file in sorted(folder.rglob("*.py"))
        for line, text in _prose(file)
        if PRONOUN.search(text)
    ]
    assert found == []


def test_numbers_are_in_no_path() -> None:
    """A ``Path`` interns its parts, and Python 3.12 keeps them for good: what has a number in it is a plain name."""
    found = [
        f"{file.relative_to(PACKAGE)}:{node.lineno}"
        for file in _modules()
        for node in ast.walk(_tree(file))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("Path", "PurePath")
        and any(isinstance(one, ast.JoinedStr) for one in node.args)
    ]
    assert not found
