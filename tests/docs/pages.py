"""What a reader finds on a page of the documentation: its blocks, the commands in them, headings, links.

A block of commands is marked ``console``: a line that begins with its prompt, ``$`` or ``#`` (for root), is a command,
lines that begin with ``>`` continue it, and all else is what it prints, where ``...`` stands for anything, and as a
line for any number of lines. If the block is marked ``console figures``, every number in what it prints is an example.
"""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
EXAMPLE = r"^[{0}] (.*)\n((?:> ?.*\n)*)((?:(?![{0}] ).*\n)*)"
MOVED = re.compile(r"^  moved .*\n", re.MULTILINE)
LONG = re.compile(r"^  (?:.* s \.\.\.|waiting for .*)\n", re.MULTILINE)
"""What is said when a thing takes long: how far a rollout is, and for whom a stop waits."""
LEFT = re.compile(r"(?<= drains: )\d+ idle, |, \d+ idle(?=; at most )")
"""Connections that a machine which is busy has not moved by the time at which a rollout is summed up."""
_CHECKER = doctest.OutputChecker()


@dataclass(frozen=True)
class Example:
    """A command, and what the page says that it prints."""

    command: str
    output: str
    figures: bool
    """Whether the numbers in the output are examples."""
    where: str
    """``guide.md:12``."""

    def agrees(self, printed: str) -> bool:
        """Whether that was printed, but for what the page leaves open."""
        wanted = re.sub(r"^\.\.\.\n", "...", self.output, flags=re.MULTILINE)
        printed = LEFT.sub("", LONG.sub("", printed))
        if not MOVED.search(printed):  # a machine that is busy has not heard of it by then
            wanted = MOVED.sub("", wanted)
        if self.figures:
            wanted, printed = _without_figures(wanted), _without_figures(printed)
        return _CHECKER.check_output(wanted, printed, doctest.ELLIPSIS)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    """All that follows the fence."""
    text: str
    section: str
    """The heading of the second level that it stands under."""
    where: str
    line: int

    def examples(self) -> Iterator[Example]:
        """Its commands; none if it is not marked ``console``."""
        if self.language.partition(" ")[0] != "console":
            return
        page = self.where.partition(":")[0]
        prompt = self.text[0]  # what is printed may have lines that begin with the other
        for found in re.finditer(EXAMPLE.format(prompt), self.text, re.MULTILINE):
            command, more, output = found.groups()
            lines = [command, *(re.sub("^> ?", "", line) for line in more.splitlines())]
            line = self.line + 1 + self.text.count("\n", 0, found.start())
            yield Example("\n".join(lines), output, self.language.endswith(" figures"), f"{page}:{line}")


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    for found in FENCE.finditer(text):
        headings = re.findall(r"^## (.*)$", text[: found.start()], re.MULTILINE)
        line = text.count("\n", 0, found.start()) + 1
        language, body = found.groups()
        yield Block(language, body, headings[-1] if headings else "", f"{page.name}:{line}", line)


def examples(page: Path) -> Iterator[Example]:
    """The commands of a page, in order."""
    for block in blocks(page):
        yield from block.examples()


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """What can follow a ``#`` in a link to a page: its headings, as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[str]:
    """Where a page's links lead."""
    return (found[1] for found in re.finditer(r"\]\(([^)\s]+)\)", prose(page)))


def _without_figures(text: str) -> str:
    """With the same sign for each number, no plurals behind one, and one space where columns are filled up."""
    same = re.sub(r"\d+(\.\d+)?", "0", text)
    return re.sub(r" {2,}", " ", re.sub(r"\b(0 [a-z]+)s\b", r"\1", same))
