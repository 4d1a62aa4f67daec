"""docs/deploy.md: every command on it is run, in order, in a booted systemd."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, examples
from tests.system.harness import FULL
from tests.system.manager.booted_systemd import SHARED, Booted
from tests.system.manager.installed_units import Shop
from tests.system.wheels import build_wheels, put_python3, shared_folder

pytestmark = [
    pytest.mark.skipif(not FULL, reason="makes environments: make prove-install"),
    pytest.mark.timeout(400),  # on a busy machine a page of commands takes long
]

PAGE = ROOT / "docs" / "deploy.md"


def test_every_command(booted: Booted, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each prints what the page says, `...` standing for anything."""
    wheels = shared_folder(tmp_path_factory.getbasetemp())
    if reason := build_wheels(wheels):
        pytest.skip(reason)
    shutil.copytree(wheels, booted.shared / "wheels")
    put_python3(booted.shared / "python", Path(sys.base_prefix, "bin", "python3"), seen_as=f"{SHARED}/python")
    booted.write("stillup@.service.d/seen.conf", Shop(booted).seen())
    before = f"export PATH={SHARED}/python:{sys.base_prefix}/bin:$PATH PIP_NO_INDEX=1 PIP_FIND_LINKS={SHARED}/wheels\n"
    before += "export PIP_NO_CACHE_DIR=1\n"
    for example in examples(PAGE):
        done = booted.run("bash", "-c", before + example.command)
        printed = done.stdout + done.stderr.replace("Created symlink", "")
        assert example.agrees(done.stdout), (
            f"{example.where}: # {example.command}\n{printed}\ninstead of\n{example.output}\n{booted.journal()}"
        )
