"""A terminal that can be looked at: a pane of tmux, with a shell in it, on a server of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import which
from typing import Self, TypeVar

import pytest

from tests.system.harness import DEADLINE, eventually

needs_tmux = pytest.mark.skipif(which("tmux") is None, reason="tmux is not here")
PROMPT = "ready>"
T = TypeVar("T")


class Terminal:
    """Use it in ``with``; its size is 80 columns and 24 lines at first."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        """``folder``: where its server's socket is, and the shell; ``environment``: what the shell has beside ours."""
        self._socket = folder / "tmux"
        self._folder = folder
        self._environment = {**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})}
        for name in ("TMUX", "NO_COLOR", "COLUMNS", "LINES", "ENV", "STILLUP_REMOTE"):
            if name not in (environment or {}):
                self._environment.pop(name, None)

    def __enter__(self) -> Self:
        shell = f"exec env PS1='{PROMPT} ' bash --norc --noprofile"  # which a shell that is not asked by keys unsets
        self._tmux("new-session", "-d", "-x", "80", "-y", "24", "-c", str(self._folder), shell)
        try:
            self.until(PROMPT)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._tmux("kill-server")

    def run(self, *words: str) -> None:
        """Have the shell run a command, and say how it ended."""
        self.type(f"clear; {shlex.join(words)}; echo exit=$?", "Enter")

    def type(self, *keys: str) -> None:
        """Type text and keys, each as tmux calls it."""
        self._tmux("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def screen(self, *options: str) -> list[str]:
        """The lines that are seen; with ``-e`` with their colours."""
        return self._tmux("capture-pane", "-p", *options).split("\n")[:-1]

    def flags(self) -> dict[str, str]:
        """Whether the alternate screen is on, whether there is a cursor, whether lines wrap."""
        names = ("alternate_on", "cursor_flag", "wrap_flag")
        said = self._tmux("display-message", "-p", " ".join(f"#{{{name}}}" for name in names))
        return dict(zip(names, said.split(), strict=True))

    def until(self, *parts: str, unless: str = "") -> list[str]:
        """Wait until each part stands somewhere on the screen, and the other one nowhere; the lines then."""

        def look() -> list[str] | None:
            lines = self.screen()
            text = "\n".join(lines)
            return lines if all(part in text for part in parts) and not (unless and unless in text) else None

        return self._wait(look, f"{parts} without {unless!r} on the screen")

    def line(self, *parts: str) -> str:
        """Wait until there is a line with these parts; that line."""
        return self._wait(
            lambda: next((line for line in self.screen() if all(part in line for part in parts)), None),
            f"a line {parts}",
        )

    def _wait(self, look: Callable[[], T | None], what: str) -> T:
        try:
            return eventually(look, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n" + "\n".join(self.screen())) from None

    def _tmux(self, *words: str) -> str:
        argv = ["tmux", "-S", str(self._socket), "-f", "/dev/null", *words]
        done = subprocess.run(argv, env=self._environment, capture_output=True, text=True, timeout=DEADLINE, check=True)
        return done.stdout
