"""The rows of docs/metrics.md: each metric that it has, with its type, its labels and their values."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "metrics.md"
_ROW = re.compile(r"^\| `(stillup_\w+)` \| (\w+) \| (.*?) \| (.+) \|$", re.MULTILINE)
_SERIES = {"histogram": ("_bucket", "_sum", "_count")}


@dataclass(frozen=True)
class MetricRow:
    """One metric."""

    name: str
    type: str
    labels: dict[str, set[str]]
    """With the values that are listed; none of a label whose values are not known beforehand."""
    help: str

    @property
    def series(self) -> list[str]:
        """The names of its time series."""
        return [self.name + suffix for suffix in _SERIES.get(self.type, ("",))]


def metric_rows() -> list[MetricRow]:
    """All of them, in the order of the page."""
    return [
        MetricRow(name, kind, dict(map(_label, labels.split("; "))) if labels else {}, text)
        for name, kind, labels, text in _ROW.findall(PAGE.read_text())
    ]


def _label(cell: str) -> tuple[str, set[str]]:
    name, values = cell.split(": ")
    return name.strip("`"), set() if values.startswith("such as") else set(re.findall(r"`([^`]*)`", values))
