"""Somebody stops what the file here names, while another service is the only one that runs: that one is left alone.

With ``name = "staging"`` in ./stillup.toml, ``stillup stop`` stopped prod.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stillup.wire.runtime_paths import bases
from tests.system.command_line import stillup
from tests.system.harness import Service


def test_the_service_of_this_directory_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's, the variable's, the directory's own is meant, and no other one is acted on; each says which."""
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    prod = f"prod-{os.getpid()}"
    folders = home, staging, neither = [tmp_path / name for name in ("home", "staging", "neither")]
    for folder in folders:
        folder.mkdir()
    (staging / "stillup.toml").write_text('app = "main:app"\nname = "staging"\n')
    service = Service(home, "main:app", "--name", prod, runtime=Path(bases(os.geteuid(), os.environ)[0]) / prod)
    service.write()
    with service:
        done = stillup("stop", cwd=staging)
        assert done.returncode == 3
        assert "('staging' by stillup.toml, line 2); what runs is" in done.stderr
        assert f"'{prod}'" in done.stderr
        done = stillup("stop", cwd=neither)
        assert (done.returncode, "none is named 'neither' or was started in it" in done.stderr) == (3, True)
        done = stillup("status", cwd=staging, environment={"STILLUP_NAME": prod})
        assert done.stdout.startswith(f"{prod}  serving")
        assert service.process.poll() is None
        assert stillup("whoami", cwd=home).stdout.startswith(f"{prod}  uid ")
        done = stillup("stop", cwd=home)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"{prod}  stopped"), done
        assert service.process.wait(20) == 0
