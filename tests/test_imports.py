"""The house: imports run one way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_imports_run_one_way() -> None:
    """The contracts of import-linter in pyproject.toml hold: layers, purity of core and wire, what the client skips."""
    linter = Path(sys.executable).with_name("lint-imports")
    checked = subprocess.run(
        [linter, "--no-cache"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
