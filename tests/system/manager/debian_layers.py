"""Packages of other Debians, fetched and unpacked beside this machine's own (``layer.sh``)."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SCRIPT = Path(__file__).with_name("layer.sh")


def unpack(what: str, layer: Path) -> str:
    """Fetch packages and unpack them; why that cannot be, or nothing."""
    argv = ["bash", str(_SCRIPT), what, str(layer)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)
    return f"{what} is not to be had: {done.stderr}" if done.returncode != 0 else ""
