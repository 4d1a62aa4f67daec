"""Autobahn's fuzzing client for the Python that runs here: fetched, converted, and kept in the environment."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from tests.autobahn import suite_conversion
from tests.autobahn.case_comparison import CaseEnd

ROOT = Path(__file__).resolve().parents[2]
VERSION = "25.10.1"
REQUIREMENTS = ("autobahn==0.10.9", "txaio==2.1.0", "Twisted>=24.11", "wsaccel", "fissix>=24.4.24")
"""autobahn is the version that the suite asks for, without its extras; wsaccel masks frames in C."""
PATIENCE = 900
"""Seconds for a run of cases; with all of them it takes some minutes."""


class NoFuzzer(Exception):
    """The fuzzer is not to be had, or did not run."""


class FuzzerRun(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be run against which server.

    ``streams`` cases run at a time, each in a process of its own; with ``reloads``, a file with two counts, each begins
    after a reload (``fuzzing_client``).
    """

    url: str
    cases: Sequence[str]
    exclude: Sequence[str] = ()
    streams: int = 1
    reloads: Path | None = None


class ConvertedSuite:
    """The suite, and the Python that has what it needs."""

    def __init__(self) -> None:
        made_of = repr((VERSION, REQUIREMENTS, Path(suite_conversion.__file__).read_bytes()))
        digest = hashlib.sha256(made_of.encode()).hexdigest()[:12]
        self.folder = Path(sys.prefix) / f"autobahn-suite-{digest}"
        self._python = str(self.folder / "venv" / "bin" / "python")
        if not (self.folder / "autobahntestsuite").is_dir():
            print(f"fetching and converting Autobahn's fuzzer {VERSION} ...", flush=True)
            self._make()

    def ends(self, run: FuzzerRun) -> dict[str, CaseEnd]:
        """How each case ended; none of those that it did not come to.

        Raises:
            NoFuzzer: there is no such case, or one of its own lines failed: what it says of the server means nothing.
            subprocess.TimeoutExpired: it came to no end.
        """
        with TemporaryDirectory(prefix="autobahn-") as folder:
            shares = [Path(folder) / str(number) for number in range(run.streams)]
            running = [self._started(run, share, (number, run.streams)) for number, share in enumerate(shares)]
            try:
                for process, share in zip(running, shares, strict=True):
                    code, said = process.wait(PATIENCE), (share / "log").read_text(errors="replace")
                    if code != 0 or "Traceback" in said:
                        raise NoFuzzer(f"the fuzzer failed ({code}):\n{said[-4000:]}")
            finally:
                for process in running:
                    process.kill()
                    process.wait()
            reports = [share / "index.json" for share in shares]
            return {case: end for report in reports if report.exists() for case, end in _read(report).items()}

    def _started(self, run: FuzzerRun, folder: Path, share: tuple[int, int]) -> subprocess.Popen[bytes]:
        folder.mkdir()
        spec: dict[str, object] = {"cases": run.cases, "exclude-cases": run.exclude, "exclude-agent-cases": {}}
        spec |= {"servers": [{"agent": "server", "url": run.url}], "outdir": str(folder), "share": share}
        spec |= {"reloads": str(run.reloads)} if run.reloads else {}
        (folder / "spec").write_text(json.dumps(spec))
        with (folder / "log").open("wb") as log:
            argv = [self._python, "-m", "tests.autobahn.fuzzing_client", str(folder / "spec")]
            environment = {**os.environ, "PYTHONPATH": str(self.folder)}
            return subprocess.Popen(argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _make(self) -> None:
        for earlier in self.folder.parent.glob("autobahn-suite-*"):
            shutil.rmtree(earlier)
        venv.create(self.folder / "venv", with_pip=True, clear=True)
        _done(self._python, "-m", "pip", "install", "--quiet", *REQUIREMENTS)
        what = ["--no-deps", "--no-binary", "autobahntestsuite", f"autobahntestsuite=={VERSION}"]
        with TemporaryDirectory(dir=self.folder) as folder:
            _done(self._python, "-m", "pip", "download", "--quiet", "--dest", folder, *what)
            name = f"autobahntestsuite-{VERSION}"
            with tarfile.open(Path(folder) / f"{name}.tar.gz") as archive:
                archive.extractall(folder, filter="data")
            source, target = Path(folder) / name / "autobahntestsuite", Path(folder) / "converted"
            _done(self._python, "-m", "tests.autobahn.suite_conversion", str(source), str(target))
            target.rename(self.folder / "autobahntestsuite")


def _done(*argv: str) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise NoFuzzer(f"{' '.join(argv)}: {done.stderr.strip()[-4000:]}")


def _read(report: Path) -> dict[str, CaseEnd]:
    cases = json.loads(report.read_text())["server"]
    return {
        name: CaseEnd(case["behavior"], case["behaviorClose"], case["remoteCloseCode"]) for name, case in cases.items()
    }
