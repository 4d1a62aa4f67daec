"""uvicorn's own tests, with our classes in place of its own: `python -m tests.peers`.

They come from the source of the uvicorn that is installed, which pip fetches (once: it is kept in the environment), and
run twice: as they are, and with ``plugins/our_classes.py``. Each test has to end in the same way. What does not is run
once more, alone, since many wait for times; then it is listed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.peers.outcome_comparison import Difference, Outcome, differences, read_outcomes, summary

SUITES = ("protocols", "middleware", "test_server.py", "test_ssl.py", "test_default_headers.py", "test_lifespan.py")
"""What concerns those who serve connections; the rest is about uvicorn's command line and its own supervisors."""
PLUGINS = Path(__file__).with_name("plugins")
LONGEST = 60
"""Seconds for one of them: what hangs is a failure, and the others run."""
PATIENCE = 900
"""Seconds for a run; some tests wait for seconds, and all of them take one to two minutes."""
LINES = 12
"""Of what pytest says of a failure."""


class NoSuite(Exception):
    """The tests are not to be had, or did not run."""


def fetched(version: str) -> Path:
    """The folder of that version's source, with its tests.

    Raises:
        NoSuite: pip does not get it.
    """
    kept = Path(sys.prefix) / "uvicorn-source"
    source = kept / f"uvicorn-{version}"
    if not source.is_dir():
        print(f"fetching the source of uvicorn {version} ...", flush=True)
        what = ["--no-deps", "--no-binary", "uvicorn", f"uvicorn=={version}"]
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(kept), *what]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise NoSuite(f"pip does not get the source of uvicorn {version}: {done.stderr.strip()}")
        with TemporaryDirectory(dir=kept) as folder, tarfile.open(kept / f"{source.name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
            (Path(folder) / source.name).rename(source)
    return source


def run_suite(source: Path, tests: Sequence[str], *, ours: bool, jobs: int) -> dict[str, Outcome]:
    """Run some of the tests of that source against the uvicorn that is installed; how each ended.

    Raises:
        NoSuite: pytest ran none, or not to its end.
    """
    with TemporaryDirectory() as folder:
        for name in ("tests", "pyproject.toml"):  # not its package
            (Path(folder) / name).symlink_to(source / name)
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "outcome_log", "-o", "addopts="]
        argv += ["--timeout", str(LONGEST)]
        argv += ["-p", "our_classes"] if ours else []
        argv += ["-n", str(jobs)] if jobs > 1 else []
        outcomes = Path(folder) / "outcomes"
        environment = {**os.environ, "OUTCOMES": str(outcomes), "PYTHONPATH": str(PLUGINS)}
        environment.pop("PYTEST_ADDOPTS", None)
        done = subprocess.run(
            [*argv, *tests], cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode not in (0, 1) or not outcomes.exists():
            raise NoSuite(f"pytest exited with {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return read_outcomes(outcomes)


def _compared(source: Path, tests: Sequence[str], *, jobs: int) -> Sequence[Difference]:
    runs = []
    for name, ours in (("uvicorn's classes", False), ("our classes", True)):
        print(f"with {name} ... ", end="", flush=True)
        began = time.monotonic()
        runs.append(run_suite(source, tests, ours=ours, jobs=jobs))
        print(f"{summary(runs[-1])} in {time.monotonic() - began:.0f} s", flush=True)
    return differences(*runs)


def main(options: argparse.Namespace) -> int:
    """Run them, and print what differs; the exit code."""
    version = metadata.version("uvicorn")
    try:
        source = fetched(version)
        print(f"uvicorn {version}'s own tests, {options.jobs} at a time", flush=True)
        found = _compared(source, options.tests or [f"tests/{suite}" for suite in SUITES], jobs=options.jobs)
        if found:
            print(f"{len(found)} differ, which are run once more, alone")
            found = _compared(source, [one.test for one in found], jobs=1)
    except (NoSuite, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 1
    for one in found:
        print(f"\n{one}")
        print("\n".join(f"  | {line}" for line in one.ours.said.splitlines()[-LINES:]))
    print(f"\n{len(found)} differ" if found else "all end in the same way")
    return int(bool(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="how many processes run tests (2)")
    parser.add_argument("tests", nargs="*", help="some of uvicorn's tests only, as tests/test_ssl.py")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main(_options()))
