"""The tables and pictures of what was measured are made of docs/measured, which the benchmarks write."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from benchmarks import reload_tail, socket_kinds
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "benchmarks.md").read_text()
README = (ROOT / "README.md").read_text()
PICTURES = ("peers", "boot", "sockets")
WAYS = {
    "started": "started one by one",
    "template": "forked from a template",
    "preload": "`--preload`",
    "warm": "`--warm`",
    "warm, preload": "both",
}


def measured(name: str) -> Any:
    return json.loads((ROOT / "docs" / "measured" / f"{name}.json").read_text())


def test_other_servers() -> None:
    """The same rows on both pages: what was counted in one run."""
    for one in measured("peers")["servers"]:
        gap = f"{one['longest_gap'] * 1000:.0f} ms"
        counts = [one[name] for name in ("reloads", "requests", "failed", "closed", "reconnected")]
        row = f"| {one['server']} {one['version']} | {' | '.join(map(str, counts))} | {gap} |"
        assert row in PAGE
        assert row in README


def test_by_kind_of_client() -> None:
    """Each kind's line has what each server lost of it."""
    servers = measured("peers")["servers"]
    names = [f"{one['server']} {one['version']}" for one in servers]
    head = f"| failed + closed by kind | {' | '.join(names)} |"
    assert head in PAGE
    for line in PAGE.partition(head)[2].splitlines()[2:]:
        kind, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if kind == "most often failed by":
            break
        for one, cell in zip(servers, cells, strict=True):
            tally = one["kinds"][kind]
            assert [int(number) for number in cell.split("+")] == [tally["failed"], tally["closed"]][
                : cell.count("+") + 1
            ]
    else:
        pytest.fail("the table has no end")


def test_boot() -> None:
    """A line for each app and way."""
    for app, ways in measured("boot")["apps"].items():
        for way, name in WAYS.items():
            if way not in ways:
                continue
            figures = ways[way]
            cells = f"| {name} | {figures['a reload']:.2f} | {figures['ms']:.0f} ms | {figures['memory']:.2f} |"
            assert cells in PAGE, (app, way)


def test_sockets() -> None:
    """The table is the one that the benchmark prints."""
    assert socket_kinds.table(measured("sockets")["servers"]) in PAGE


def test_reload_tail() -> None:
    """So is this one."""
    assert reload_tail.table(measured("tail")["servers"]) in PAGE


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name: str) -> None:
    """There is one of each file, and the page shows it."""
    assert f"(pictures/{name}.svg)" in PAGE
    picture = (ROOT / "docs" / "pictures" / f"{name}.svg").read_text()
    assert picture.lstrip().startswith("<?xml")
    assert not re.search(r"(?:href|src)=\"https?:", picture), "it fetches nothing"
