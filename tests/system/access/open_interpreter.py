"""Our interpreter, which may lie in somebody's home, for every user."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.harness import ROOT


def for_anybody(folder: Path) -> list[str]:
    """The words before a command that let every user run our interpreter, in a mount namespace if need be."""
    needed = sorted({os.path.realpath(path) for path in (sys.base_prefix, sys.prefix, ROOT)}, key=len)
    parents = (str(parent) for path in needed for parent in reversed(Path(path).parents))
    closed = next((parent for parent in parents if not os.stat(parent).st_mode & stat.S_IXOTH), None)
    if closed is None:
        return []
    script = ["set -e"]
    hidden = [path for path in needed if path.startswith(f"{closed}/")]
    for number, path in enumerate(hidden):
        script += [f"mkdir {folder}/m{number}", f"mount --bind {path} {folder}/m{number}"]
    script.append(f"mount -t tmpfs -o mode=755 tmpfs {closed}")
    for number, path in enumerate(hidden):
        script += [f"mkdir -p {path}", f"mount --move {folder}/m{number} {path}"]
    wrapper = folder / "for-anybody"
    wrapper.write_text("\n".join([*script, 'exec "$@"']))
    words = ["unshare", "--mount", "sh", str(wrapper)]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("other users cannot run our interpreter, and there are no mount namespaces")
    for number in range(len(hidden)):
        (folder / f"m{number}").rmdir()
    return words


def no_mounts(folder: Path) -> None:
    """Make room for those of the next mount namespace."""
    for place in folder.glob("m[0-9]"):
        place.rmdir()
