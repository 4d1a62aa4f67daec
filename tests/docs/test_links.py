"""Every link from one page to another leads somewhere, and every page can be reached from README.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import stillup
from tests.docs.pages import PAGES, ROOT, anchors, links, prose

PACKAGE = Path(stillup.__file__).parent
LINKED = (*PAGES, ROOT / "CHANGELOG.md")


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file of this repository, and to a heading in it."""
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    """Relative to the repository, to the package, or to its tests. Only what has its folder before it is looked at."""
    for found in re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", prose(page)):
        name = found.removeprefix("supervisor/stillup/")  # which is installed elsewhere, perhaps
        assert any((place / name).exists() for place in (ROOT, ROOT / "tests", PACKAGE)), f"{page.name}: {name}"


def test_every_page_can_be_reached() -> None:
    reached: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        todo += [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if "://" not in link]
    assert set(PAGES) <= reached, set(PAGES) - reached
