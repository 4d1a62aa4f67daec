"""The command line in this process: the same code from its first word to its exit code, without a Python that starts.

What an interpreter of its own does is tested where a command is started as a process: ``test_cli.py`` has each of them.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from stillup.__main__ import main


def stillup(
    *words: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``stillup WORDS``. Not in two threads at a time, and no command that loads an app: that would stay here."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=how) for how in ("strict", "backslashreplace"))
    with (
        contextlib.chdir(cwd or "."),
        mock.patch.dict(os.environ, environment or {}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main(words, prog_name="stillup")
        except SystemExit as exit_:
            code = exit_.code
        else:
            code = 0
    assert code is None or isinstance(code, int), code
    said, wrong = (_written(stream) for stream in (out, err))
    return subprocess.CompletedProcess(["stillup", *words], code or 0, said, wrong)


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()
