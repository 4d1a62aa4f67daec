"""How many processors we may use, against what the kernel was told to give us."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillup.host import proc_files, processors

pytestmark = pytest.mark.usefixtures("no_leak")

USABLE = "from stillup.host import processors; print(processors.usable())"
V2 = "30 24 0:26 {root} {top} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 24 0:27 {root} {top} rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
V1 += "32 24 0:28 / /else rw - cgroup cgroup rw,memory\n"


def seen_after(first: str) -> int:
    """How many a process sees that has done this first."""
    code = f"import os; {first}; {USABLE}"
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def test_of_one_processor() -> None:
    """A process that may run on one alone has one, whatever the machine has."""
    assert seen_after("os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})") == 1


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of our own whose processors can be limited."""
    name = f"stillup-test-{os.getpid()}"
    for top in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu")):
        folder = top / name
        with contextlib.suppress(OSError):
            folder.mkdir()
            try:
                if (folder / "cpu.max").exists() or (folder / "cpu.cfs_quota_us").exists():
                    yield folder
                    return
            finally:
                folder.rmdir()
    pytest.skip("no control group can be made that limits processors")


def test_of_a_group_with_a_quota(group: Path) -> None:
    """A process in a group that has half a processor counts on one; with two and a half it has all it may run on."""
    # A group is left by the end of its process alone, which subprocess.run has awaited.
    join = f"open('{group}/cgroup.procs', 'w').write(str(os.getpid()))"
    for quota, most in ((50_000, 1), (250_000, 3)):
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{quota} 100000")
        else:
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        assert seen_after(join) == min(most, processors.usable())


@pytest.mark.parametrize(
    ("files", "limits", "count"),
    [
        pytest.param(("0::/a/b\n", V2), {"a/b/cpu.max": "200000 100000"}, 2, id="its own"),
        pytest.param(("0::/a/b\n", V2), {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 2, id="one above"),
        pytest.param(("0::/a/b\n", V2), {"a/cpu.max": "400000 100000", "cpu.max": "1000 100000"}, 1, id="the least"),
        pytest.param(("0::/a/b\n", V2), {"a/b/cpu.max": "max 100000"}, 64, id="none"),
        pytest.param(("0::/\n", V2), {"cpu.max": "300000 100000"}, 3, id="a container"),
        pytest.param(("0::/elsewhere\n", V2), {"cpu.max": "300000 100000"}, 3, id="not shown here"),
        pytest.param(
            ("4:memory:/m\n2:cpuacct,cpu:/a\n0::/\n", V1),
            {"a/cpu.cfs_quota_us": "250000\n", "a/cpu.cfs_period_us": "50000\n"},
            5,
            id="version 1",
        ),
        pytest.param(
            ("2:cpu,cpuacct:/a\n", V1), {"a/cpu.cfs_quota_us": "-1\n", "a/cpu.cfs_period_us": "1\n"}, 64, id="-1"
        ),
        pytest.param(("4:memory:/a\n", V1), {}, 64, id="none of it"),
        pytest.param(
            ("0::/\n", f"40 23 0:35 / /mnt rw - tmpfs  rw\n{V2}"),
            {"cpu.max": "300000 100000"},
            3,
            id="without a source",
        ),
    ],
)
def test_limits_of_groups(
    files: tuple[str, str], limits: dict[str, str], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least of what a group and those above it may use, in the forms of both versions; 64 are there without."""
    groups, mounts = files
    root = "/shown" if "elsewhere" in groups else "/"
    texts = {"cgroup": groups, "mountinfo": mounts.format(root=root, top=tmp_path)}
    monkeypatch.setattr(proc_files, "read", lambda _, name: texts[name])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for name, text in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert processors.usable() == count


def test_without_a_word_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc says nothing of control groups, the processors that it may run on count."""

    def missing(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(proc_files, "read", missing)
    assert processors.usable() == len(os.sched_getaffinity(0))
