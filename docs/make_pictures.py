"""Makes the pictures of commands in ``docs/pictures`` from what they really print: ``python -m docs.make_pictures``.

A service of three releases is started, put under a steady load, reloaded to a good release and to one that crashes, and
what ``reload``, ``status``, ``top`` and the page of ``dashboard`` show of it is kept: text as SVG, the page as PNG. It
takes a minute, tmux for ``top``, and Chromium with selenium for the page.
"""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.console import Console
from rich.text import Text

from benchmarks.control import Control
from benchmarks.load import Load, Mix
from benchmarks.server import started

PICTURES: Final = Path(__file__).with_name("pictures")
STILLUP: Final = str(Path(sys.executable).with_name("stillup"))
WIDTH: Final = 112
"""Columns of a picture."""
APP: Final = """\
import os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
app = Starlette(routes=[Route("/{path:path}", lambda request: PlainTextResponse("hello\\n", headers={
    "x-gen": os.environ["STILLUP_GENERATION"]}))])
"""
CRASHES: Final = "import os, threading\nthreading.Timer(1.5, os._exit, [70]).start()\n" + APP
BROKEN: Final = APP.replace("import os\n", "import os\nimport nosuch\n", 1)
MIX: Final = Mix(fresh=4, keepalive=8, idle=300, stream=2, think=0.02)
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


def printed(words: Sequence[str], runtime: str) -> str:
    """What a command prints on a terminal, with its colours, below the line that calls it."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(WIDTH), "STILLUP_RUNTIME_DIR": runtime}
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


def picture(name: str, title: str, *texts: str) -> None:
    """Keep texts, with their colours, as one SVG."""
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115
    for text in texts:
        console.print(Text.from_ansi(text.rstrip("\n")))
    path = PICTURES / f"{name}.svg"
    path.write_text(console.export_svg(title=title, code_format=SVG, unique_id=name))
    print(path, file=sys.stderr)


async def main() -> None:
    """Make all of them."""
    PICTURES.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="shop-") as place:
        folder = Path(place)
        release(folder, "42", APP)
        control = Control(f"{folder}/run")
        words = f"run main:app --directory {folder}/current --bind 127.0.0.1:0 --workers 3 --name shop"
        words += f" --runtime-dir {control.directory} --health-path / --no-access-log --probation 10"
        async with started([STILLUP, *words.split()]) as server, Load(await control.serving(server), MIX) as load:
            await load.wait_every_client()

            async def shown(*command: str) -> str:
                return await asyncio.to_thread(printed, command, control.directory)

            release(folder, "43", APP)
            good = await shown("reload")
            release(folder, "44", BROKEN)
            picture("reload", "a reload, and one that is rejected", good, "", await shown("reload"))
            release(folder, "45", CRASHES)
            back = await shown("reload", "--wait", "probation")
            picture("rollback", "a release that crashes is rolled back", back, "", await shown("status"))


if __name__ == "__main__":
    asyncio.run(main())
