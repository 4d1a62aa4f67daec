"""Each mutation fits the code as it is, and is refused loudly where it does not."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from stillup.core import commands
from tests.system import mutations
from tests.system.chaos import stop_points
from tests.system.mutations import PACKAGE, Mutation, Stale, mutate, mutated

CODE = """
LIMIT = 10.0


class Worker:
    async def serve(self):
        if self.ready:
            self.accept()


def serve():
    pass
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with one module."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text(CODE)
    return package


def test_every_mutation_fits(tmp_path: Path) -> None:
    """What a test changes is there once, the copy is still Python, and it is not what it was."""
    copy = Path(mutated(tmp_path)["PYTHONPATH"]) / PACKAGE.name
    stale = []
    for name, changes in mutations.every().items():
        changed: set[Path] = set()
        try:
            for change in changes:
                changed.add(mutate(copy, change))
        except Stale as error:
            stale.append(f"{name}: {error}")
        for file in changed:
            sound = PACKAGE / file.relative_to(copy)
            assert file.read_text() != sound.read_text(), name
            ast.parse(file.read_text())
            shutil.copy(sound, file)
    assert not stale, "\n".join(stale)


@pytest.mark.parametrize(
    ("mutation", "changed"),
    [
        (
            Mutation("Worker.serve", "    if self.ready:\n", "    if True:\n        pass\n"),
            "        if True:\n            pass\n",
        ),
        (Mutation("Worker.serve", "accept()", "leave()"), "            self.leave()\n"),
        (Mutation("module.serve", "    pass\n", "    return\n"), "def serve():\n    return\n"),
        (Mutation("LIMIT", "10.0", "1.0"), "LIMIT = 1.0\n"),
    ],
)
def test_the_text_is_that_of_the_function(package: Path, mutation: Mutation, changed: str) -> None:
    """It is written as at the left margin, whether the function is a method or not; nothing else changes."""
    mutate(package, mutation)
    text = (package / "module.py").read_text()
    assert changed in text
    assert text.count("\n") - CODE.count("\n") == mutation.new.count("\n") - mutation.old.count("\n")


@pytest.mark.parametrize(
    "mutation",
    [
        Mutation("serve", "pass", "return"),
        Mutation("Worker.stop", "pass", "return"),
        Mutation("Worker.serve", "pass", "return"),
        Mutation("Worker.serve", "self", "worker"),
        Mutation("Worker.serve", "if self.ready:\n    self.accept()", ""),
        Mutation("Worker.serve", "  self.accept()", ""),
    ],
    ids=[
        "two functions",
        "no function",
        "in another function",
        "text twice",
        "not as at the left margin",
        "not from the start of a line",
    ],
)
def test_what_does_not_fit_is_refused(package: Path, mutation: Mutation) -> None:
    """Nothing is changed by a mutation whose function or text is not there once."""
    with pytest.raises(Stale):
        mutate(package, mutation)
    assert (package / "module.py").read_text() == CODE


def test_the_commands_at_which_a_supervisor_stands_still_exist() -> None:
    """The chaos matrix knows them by the names of their classes."""
    assert {name for name in stop_points.DECISIONS if hasattr(commands, name)} == set(stop_points.DECISIONS)
