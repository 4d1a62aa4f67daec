"""Makes ``docs/pictures/*.svg`` from what the benchmarks have measured: ``python -m docs.make_plots``.

Each picture is made of the file of the same name in ``docs/measured``, which ``make bench-peers``, ``bench-boot`` and
``bench-sockets`` write.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MEASURED: Final = Path(__file__).with_name("measured")
PICTURES: Final = Path(__file__).with_name("pictures")
OURS, OTHERS, SECOND = "#1a7f37", "#8c959f", "#bf8700"
BAD, WORSE = "#cf222e", "#e8913a"
WAYS: Final = {
    "started": "started one by one",
    "template": "forked from a template (default)",
    "preload": "--preload",
    "warm": "--warm",
    "warm, preload": "--warm and --preload",
}
APPS: Final = {
    "trivial": "a trivial app, 2 workers",
    "fastapi2": "FastAPI, 2 workers",
    "fastapi": "FastAPI, 4 workers",
    "pandas": "FastAPI, pandas and SQLAlchemy, 4 workers",
}


def main() -> None:
    """Draw each, and say where it is; ``metadata`` and the salt keep two runs the same."""
    mpl.rcParams |= {
        "svg.hashsalt": "stillup",
        "svg.fonttype": "none",
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    PICTURES.mkdir(exist_ok=True)
    for name, draw in DRAWN.items():
        source = MEASURED / f"{name}.json"
        figure = draw(json.loads(source.read_text()))
        path = PICTURES / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight", facecolor="white")
        print(path, file=sys.stderr)


def peers(measured: Mapping[str, Any]) -> Figure:
    """What clients lost in a reload, on the average: failed requests, and kept connections that were closed."""
    figure = Figure(figsize=(8, 3.2))
    axes = figure.add_subplot()
    servers = measured["servers"]
    names = [f"{one['server']} {one['version']}" for one in servers]
    failed, closed = ([one[what] / one["reloads"] for one in servers] for what in ("failed", "closed"))
    axes.barh(names, failed, color=BAD, label="requests that failed")
    axes.barh(names, closed, left=failed, color=WORSE, label="kept connections that were closed")
    for row, (one, other) in enumerate(zip(failed, closed, strict=True)):
        text = "0" if one + other == 0 else f"{one:.0f} + {other:.0f}"
        axes.annotate(text, (one + other, row), (4, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.set_xlabel("a reload")
    axes.legend(frameon=False, loc="lower right")
    workers, cpus = measured["workers"], measured["cpus"]
    axes.set_title(f"Lost in a reload under the same load ({workers} workers, {cpus} cores)", loc="left", fontsize=12)
    return figure


def boot(measured: Mapping[str, Any]) -> Figure:
    """How long a reload takes beside a bare start of uvicorn, by the way in which workers begin."""
    figure = Figure(figsize=(8, 5))
    apps = measured["apps"]
    rows = figure.subplots(
        len(apps),
        1,
        sharex=True,
        gridspec_kw={"height_ratios": [sum(way in WAYS for way in one) for one in apps.values()]},
    )
    for axes, (name, ways) in zip(rows, apps.items(), strict=True):
        _ratios(axes, {way: figures["a reload"] for way, figures in ways.items() if way in WAYS})
        axes.set_title(APPS[name], loc="left", fontsize=11)
    rows[-1].set_xlabel("a reload; 1 is a bare start of uvicorn to its first answer")
    figure.tight_layout()
    return figure


def _ratios(axes: Axes, ratios: Mapping[str, float]) -> None:
    names = [WAYS[way] for way in ratios]
    axes.barh(names, list(ratios.values()), color=[OTHERS if way == "started" else OURS for way in ratios], height=0.6)
    axes.axvline(1.0, color="black", linewidth=1, linestyle="--")
    for row, ratio in enumerate(ratios.values()):
        axes.annotate(f"{ratio:.2f}", (ratio, row), (4, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()


def sockets(measured: Mapping[str, Any]) -> Figure:
    """Requests a second by a Unix socket and by TCP, of an app and of redis."""
    figure = Figure(figsize=(8, 2.6))
    for axes, one in zip(figure.subplots(1, 2), measured["servers"], strict=True):
        kinds = ["TCP", "Unix"]
        rates = [one[kind]["rate"] for kind in kinds]
        axes.barh(kinds, rates, color=[OTHERS, OURS], height=0.6)
        for row, kind in enumerate(kinds):
            text = f"{one[kind]['rate']:,.0f}/s, p99 {one[kind]['p99']:.1f} ms"
            axes.annotate(text, (0, row), (6, 0), textcoords="offset points", va="center", color="white")
        axes.set_title(f"{one['server']}: x {one['ratio']:.2f}", loc="left", fontsize=11)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
    figure.tight_layout()
    return figure


DRAWN: Final[Mapping[str, Callable[[Mapping[str, Any]], Figure]]] = {"peers": peers, "boot": boot, "sockets": sockets}


if __name__ == "__main__":
    main()
