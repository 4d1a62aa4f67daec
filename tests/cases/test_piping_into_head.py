"""Somebody pipes a command into head, or the disk is full: what it did is its exit code, not whether it was read.

``stillup reload | head -n 1`` ended with 1, which means that the old generation is kept, while the new one served.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.harness import Service

BROKEN = "import nosuch\n"


def shell(folder: Path, script: str) -> tuple[list[int], str]:
    """The exit codes of a pipeline's commands, and what the first of them wrote to stderr."""
    path = f"export PATH={Path(sys.executable).parent}:$PATH PYTHONUNBUFFERED="
    script = f'{path}\n{script}\necho "codes: ${{PIPESTATUS[*]}}" >&9'
    done = subprocess.run(
        ["bash", "-c", f"exec 9>codes; {script}"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    codes = (folder / "codes").read_text().removeprefix("codes: ").split()
    return [int(code) for code in codes], done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_the_exit_code_is_the_rollouts(tmp_path: Path) -> None:
    """A reader that leaves, a device that is full: reload, status, events, stop end as what they did ended."""
    service = Service(tmp_path, "main:app", "--name", "shop")
    service.tracebacks_expected = True  # of the release that is broken
    service.write()
    with service:
        place = f"--runtime-dir {service.runtime}"
        codes, wrong = shell(tmp_path, f"stillup reload {place} | head -n 1")
        assert (codes, wrong) == ([0, 0], "")
        assert service.generations()[-1] == 2
        codes, wrong = shell(tmp_path, f"stillup reload {place} >/dev/full")
        assert (codes, wrong) == ([0], "stillup: not all of the output was written: No space left on device\n")
        assert service.generations()[-1] == 3
        service.write(BROKEN)
        assert shell(tmp_path, f"stillup reload {place} </dev/null >/dev/full 2>&1") == ([1], "")
        assert service.status().state == "serving"
        assert shell(tmp_path, f"stillup status --json {place} >/dev/full 2>&1") == ([0], "")
        # It ends with its reader, though what happens goes on.
        assert shell(tmp_path, f"timeout 20 stillup events --follow {place} | head -n 1") == ([0, 0], "")
        assert shell(tmp_path, f"stillup stop {place} >/dev/full 2>&1") == ([0], "")
        assert service.process.wait(20) == 0


@pytest.mark.parametrize(("words", "code"), [("nosuch", 2), ("status --runtime-dir gone", 3)])
def test_a_refusal_that_nobody_can_read(tmp_path: Path, words: str, code: int) -> None:
    """Its code is its own, not Python's 120 or 1."""
    assert shell(tmp_path, f"stillup {words} </dev/null >/dev/full 2>&1") == ([code], "")
