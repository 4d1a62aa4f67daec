"""How much memory we may use, against what the kernel was told to give us."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stillup.host import memory_limit, proc_files

pytestmark = pytest.mark.usefixtures("no_leak")

LIMIT = 1 << 30
V2 = "30 24 0:26 / {top} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "32 24 0:28 / {top} rw - cgroup cgroup rw,memory\n"


def test_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc says nothing of control groups it is the machine's."""

    def missing(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(proc_files, "read", missing)
    assert memory_limit.usable() == psutil.virtual_memory().total


@pytest.fixture
def group() -> Iterator[tuple[Path, str]]:
    """A control group of our own whose memory can be limited, and the file that does."""
    name = f"stillup-test-memory-{os.getpid()}"
    for top, file in ((Path("/sys/fs/cgroup"), "memory.max"), (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes")):
        folder = top / name
        with contextlib.suppress(OSError):
            folder.mkdir()
            try:
                if (folder / file).exists():
                    yield folder, file
                    return
            finally:
                folder.rmdir()
    pytest.skip("no control group can be made that limits memory")


def test_of_a_group_with_a_limit(group: tuple[Path, str]) -> None:
    """A process in it has no more than that."""
    folder, file = group
    (folder / file).write_text(str(LIMIT))
    # A group is left by the end of its process alone, which subprocess.run has awaited.
    join = f"open('{folder}/cgroup.procs', 'w').write(str(os.getpid()))"
    code = f"import os; {join}; from stillup.host import memory_limit; print(memory_limit.usable())"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(shown.stdout) == min(LIMIT, psutil.virtual_memory().total)


@pytest.mark.parametrize(
    ("files", "limits", "most"),
    [
        pytest.param(("0::/a/b\n", V2), {"a/b/memory.max": "4096\n"}, 4096, id="its own"),
        pytest.param(("0::/a/b\n", V2), {"a/b/memory.max": "max\n", "a/memory.max": "8192\n"}, 8192, id="one above"),
        pytest.param(("0::/a/b\n", V2), {"a/b/memory.max": "max\n"}, None, id="none"),
        pytest.param(("4:memory:/m\n", V1), {"m/memory.limit_in_bytes": "8192\n"}, 8192, id="version 1"),
        pytest.param(("4:memory:/m\n", V1), {"m/memory.limit_in_bytes": f"{1 << 62}\n"}, None, id="no limit there"),
        pytest.param(("2:cpu:/m\n", V1), {"m/memory.limit_in_bytes": "8192\n"}, None, id="of something else"),
    ],
)
def test_limits_of_groups(
    files: tuple[str, str], limits: dict[str, str], most: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least of what a group and those above it may use, in the forms of both versions."""
    groups, mounts = files
    texts = {"cgroup": groups, "mountinfo": mounts.format(top=tmp_path)}
    monkeypatch.setattr(proc_files, "read", lambda _, name: texts[name])
    for name, text in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory_limit.usable() == (most if most is not None else whole)
