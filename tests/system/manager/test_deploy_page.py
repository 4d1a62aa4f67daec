"""docs/deploy.md: every command on it is run, in order, in a booted systemd."""

from __future__ import annotations

import doctest
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from urllib.parse import unquote

import pytest

from tests.system.harness import ROOT
from tests.system.manager.booted import SHARED, Booted
from tests.system.manager.units import Shop

PAGE = (ROOT / "docs" / "deploy.md").read_text()


def examples() -> Iterator[tuple[str, str]]:
    """Every command of the page's console blocks, and what it is said to print."""
    for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        for command, more, output in re.findall(r"^# (.*)\n((?:>.*\n)*)((?:(?!# ).*\n)*)", block, re.MULTILINE):
            lines = [command, *(re.sub("^> ?", "", line) for line in more.splitlines())]
            yield "\n".join(lines), output


@pytest.fixture
def wheels(booted: Booted) -> str:
    """Where pip inside finds what it would have from PyPI."""
    folder = booted.shared / "wheels"
    # What is installed here: a wheel, or the tree that it was installed from.
    source = json.loads(metadata.distribution("stillup").read_text("direct_url.json") or "")["url"]
    source = unquote(source.removeprefix("file://"))
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(folder), source]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode != 0:
        pytest.skip(f"the packages are not to be had: {done.stderr}")
    return f"{SHARED}/wheels"


def test_every_command(booted: Booted, wheels: str) -> None:
    """Each prints what the page says, `...` standing for anything."""
    booted.write("stillup@.service.d/seen.conf", Shop(booted).seen())
    before = f"export PATH={sys.base_prefix}/bin:$PATH PIP_NO_INDEX=1 PIP_FIND_LINKS={wheels} PIP_NO_CACHE_DIR=1\n"
    checker = doctest.OutputChecker()
    for command, output in examples():
        done = booted.run("bash", "-c", before + command)
        printed = done.stdout + done.stderr.replace("Created symlink", "")
        same = checker.check_output(output, done.stdout, doctest.ELLIPSIS)
        assert same, f"# {command}\n{printed}\ninstead of\n{output}\n{booted.journal()}"
