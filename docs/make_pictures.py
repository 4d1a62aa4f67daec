"""Makes the pictures of commands in ``docs/pictures`` from what they really show: ``python -m docs.make_pictures``.

A service is put under a steady load, and reloaded to a good release, to one that does not import, and to one that
crashes; and once more, in the middle of which ``top`` and the dashboard are looked at. Text is kept as SVG, the page as
PNG. It takes a minute and a half, tmux, and Chromium with its driver.
"""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text

from benchmarks.control import Control
from benchmarks.load import Load, Mix
from benchmarks.request_types import Pace
from benchmarks.server import ROOT, started
from stillup.client import Client
from tests.system.dashboard.dashboard_page import chromium, dashboard, opened, resize, shown, steps
from tests.system.harness import eventually
from tests.system.tmux_terminal import Terminal

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PICTURES: Final = Path(__file__).with_name("pictures")
STILLUP: Final = str(Path(sys.executable).with_name("stillup"))
WIDTH: Final = 128
"""Columns of a picture."""
TOP: Final = (100, 26)
PAGE: Final = (1280, 1200)
WHOLE: Final = (1280, 1760)
APP: Final = "from benchmarks.app import app\n"
BROKEN: Final = f"import nosuch\n{APP}"
CRASHES: Final = f"import os, threading\nthreading.Timer(1.5, os._exit, [70]).start()\n{APP}"
SLOW: Final = f"import time\ntime.sleep(1)\n{APP}"
MIX: Final = Mix(fresh=4, keepalive=24, idle=300, slow=6, stream=4, think=0.02, pace=Pace(slow=7.0, stream=11.0))
SVG: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, Consolas, monospace; }}
.{unique_id}-title {{ font: 600 17px system-ui, sans-serif; }}
{styles}
</style>
<defs>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""As rich's own, without the font that it fetches from elsewhere."""


def release(folder: Path, name: str, source: str) -> None:
    """Write a release, and have ``current`` lead to it."""
    place = folder / "releases" / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "main.py").write_text(source)
    link = folder / "current"
    link.unlink(missing_ok=True)
    link.symlink_to(f"releases/{name}")


def printed(words: Sequence[str]) -> str:
    """What a command prints on a terminal, with its colours, below the line that calls it."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(WIDTH)}
    process = subprocess.Popen([STILLUP, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)  # noqa: S603
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 65536):
            parts.append(part)
    except OSError:  # the other end was closed (pty(7))
        pass
    process.wait()
    os.close(ours)
    return f"$ stillup {' '.join(words)}\n" + b"".join(parts).decode().replace("\r\n", "\n")


def picture(name: str, title: str, *texts: str, width: int = WIDTH) -> None:
    """Keep texts, with their colours, as one SVG of so many columns."""
    console = Console(record=True, width=width, file=open(os.devnull, "w"))  # noqa: SIM115
    for text in texts:
        console.print(Text.from_ansi(text.rstrip("\n")))
    path = PICTURES / f"{name}.svg"
    path.write_text(console.export_svg(title=title, code_format=SVG, unique_id=name))
    print(path, file=sys.stderr)


def kept(browser: Chrome, name: str) -> None:
    """Keep what the browser shows."""
    path = PICTURES / f"{name}.png"
    browser.get_screenshot_as_file(str(path))
    print(path, file=sys.stderr)


def points(client: Client, number: int) -> None:
    """Wait until the plots have so many."""
    eventually(lambda: len(client.series().points) >= number, f"{number} points", deadline=120)


def play(folder: Path, runtime: str, stack: ExitStack) -> None:
    """Have it all happen, and keep what is shown."""
    client = Client(runtime)
    environment = {"STILLUP_RUNTIME_DIR": runtime}
    os.environ |= environment
    browser = stack.enter_context(chromium(folder))
    page = stack.enter_context(dashboard(Path(runtime)))
    resize(browser, PAGE)
    opened(browser, page)
    points(client, 3)
    release(folder, "43", APP)
    good = printed(["reload"])
    release(folder, "44", BROKEN)
    picture("reload", "a reload, and one that is rejected", good, "", printed(["reload"]))
    points(client, 6)
    release(folder, "45", CRASHES)
    back = printed(["reload", "--wait", "probation"])
    resize(browser, WHOLE)
    eventually(lambda: "rolled-back" in shown(browser, "outcomes"), "the page shows the rollback")
    kept(browser, "dashboard-rollback")
    resize(browser, PAGE)
    picture("rollback", "a release that crashes is rolled back", back, "", printed(["status"]))
    points(client, 11)
    release(folder, "46", SLOW)
    terminal = stack.enter_context(Terminal(folder, environment))
    terminal.resize(*TOP)
    terminal.run("stillup", "top")
    terminal.until("req/s")
    client.reload()
    seen(lambda: terminal.screen("-e"), "draining", "serving")
    picture("top", "stillup top", "\n".join(terminal.screen("-e")), width=TOP[0])
    eventually(lambda: steps(browser).get("drain") == "active", "the page shows the drain")
    kept(browser, "dashboard")
    terminal.type("q")


def seen(look: Callable[[], Sequence[str]], *words: str) -> None:
    """Wait until all of these are seen."""
    eventually(lambda: all(word in "\n".join(look()) for word in words), f"{words}")


async def main() -> None:
    """Make all of them."""
    PICTURES.mkdir(exist_ok=True)
    os.environ["PATH"] = f"{Path(STILLUP).parent}:{os.environ['PATH']}"
    with TemporaryDirectory(prefix="shop-") as place, ExitStack() as stack:
        folder = Path(place)
        release(folder, "42", APP)
        control = Control(f"{folder}/run")
        words = f"run main:app --directory {folder}/current --bind 127.0.0.1:8000 --workers 3 --name shop"
        words += f" --runtime-dir {control.directory} --health-path /healthz --no-access-log --probation 10"
        os.environ["PYTHONPATH"] = str(ROOT)
        async with started([STILLUP, *words.split()]) as server, Load(await control.serving(server), MIX) as load:
            await load.wait_every_client()
            try:
                await asyncio.to_thread(play, folder, control.directory, stack)
            finally:
                await asyncio.to_thread(stack.close)


if __name__ == "__main__":
    asyncio.run(main())
