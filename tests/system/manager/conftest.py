"""One systemd a process that runs tests, and others for what needs them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.manager.booted_systemd import Booted, why_not
from tests.system.manager.debian_layers import unpack


@pytest.fixture(scope="module", autouse=True)
def _nothing_left() -> None:
    """What one module has booted serves the next, too; all of it ends with the session."""


@pytest.fixture(scope="session")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """A systemd that has booted: this machine's, or the one that SYSTEMD says (``layer.sh``)."""
    if reason := why_not():
        pytest.skip(reason)
    version = os.environ.get("SYSTEMD", "")
    layer = tmp_path_factory.mktemp("systemd") if version else None
    if layer is not None and (reason := unpack(version, layer)):
        pytest.skip(reason)
    with Booted(layer) as systemd:
        assert systemd.systemctl("--version").startswith(f"systemd {version}")
        yield systemd


@pytest.fixture
def with_nginx(tmp_path: Path) -> Iterator[Booted]:
    """A systemd that has booted where nginx is."""
    if reason := why_not():
        pytest.skip(reason)
    layer = None if shutil.which("nginx") else tmp_path / "layer"
    if layer is not None and (reason := unpack("nginx", layer)):
        pytest.skip(reason)
    with Booted(layer) as systemd:
        yield systemd
