"""One systemd a test session."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.manager.booted import Booted, why_not

LAYER = Path(__file__).with_name("layer.sh")


NEWER = 257


def unpack(what: str, layer: Path) -> str:
    """Fetch packages and unpack them; why that cannot be, or nothing."""
    argv = ["bash", str(LAYER), what, str(layer)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    return f"{what} is not to be had: {done.stderr}" if done.returncode != 0 else ""


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """A systemd of Debian 13 that has booted; its packages are fetched once a session."""
    if reason := why_not():
        pytest.skip(reason)
    layer = tmp_path_factory.mktemp("layer")
    if reason := unpack(str(NEWER), layer):
        pytest.skip(reason)
    with Booted(layer) as systemd:
        assert systemd.systemctl("--version").startswith(f"systemd {NEWER}")
        yield systemd


@pytest.fixture(scope="session")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """A systemd that has booted; with nginx, if that is to be had."""
    if reason := why_not():
        pytest.skip(reason)
    layer = tmp_path_factory.mktemp("layer")
    unpack("nginx", layer)
    with Booted(layer) as systemd:
        yield systemd
