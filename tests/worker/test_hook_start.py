"""What becomes a hook's program: it waits for its word, and says what is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = (sys.executable, "-P", "-m", "stillup.worker.hook_start")


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*MODULE, str(folder), *words], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_it_is_not_run_before_it_is_told_to(tmp_path: Path) -> None:
    """It waits for a byte; the end of its input is no word, and nothing has happened then."""
    with started(tmp_path, "python", "-c", "open('ran', 'w')") as process:
        assert process.communicate("", timeout=20) == ("", "")
    assert process.returncode == 126
    assert not (tmp_path / "ran").exists()


def test_it_becomes_its_program(tmp_path: Path) -> None:
    """In the same process, in its directory, with nothing to read."""
    program = "import os, sys; print(os.getpid(), os.getcwd(), sys.stdin.read())"
    with started(tmp_path, "python", "-c", program) as process:
        out, _ = process.communicate("\nmore", timeout=20)
    assert out.split() == [str(process.pid), str(tmp_path.resolve())]


def test_signals_are_as_from_a_shell(tmp_path: Path) -> None:
    """None is blocked, and none ignored that Python ignores for itself."""
    blocked = {signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        process = started(tmp_path, "cat", "/proc/self/status")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with process:
        out, _ = process.communicate("\n", timeout=20)
    wanted = ("SigBlk", "SigIgn")
    masks = {line[:6]: int(line.split()[1], 16) for line in out.splitlines() if line.startswith(wanted)}
    assert masks["SigBlk"] == 0
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert not masks["SigIgn"] >> (number - 1) & 1


@pytest.mark.parametrize("looks", [False, True], ids=["runs", "looks"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nosuch",), "there is no program nosuch in PATH (/usr/bin:/bin)"),
        (("./nosuch",), "there is no program ./nosuch"),
        (("python", "nosuch.py"), "there is no nosuch.py in "),
    ],
)
def test_what_is_missing(tmp_path: Path, words: tuple[str, ...], said: str, looks: bool) -> None:
    """It is said in a line, by who is to run it and by who only looks."""
    argv = [*MODULE, *(["--look"] if looks else []), str(tmp_path), *words]
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(argv, input="\n", capture_output=True, text=True, env=environment, check=False, timeout=20)
    assert (done.returncode, done.stderr.startswith(said)) == (127, True), done.stderr


def test_a_look_runs_nothing(tmp_path: Path) -> None:
    """It says nothing of what is there."""
    (tmp_path / "touch.py").write_text("open('ran', 'w')")
    argv = [*MODULE, "--look", str(tmp_path), "python", "touch.py"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.listdir(tmp_path) == ["touch.py"]


def test_what_cannot_be_run(tmp_path: Path) -> None:
    """A directory that is gone, and a file that is no program, each in a line."""
    with started(tmp_path / "gone", "true") as process:
        _, said = process.communicate("\n", timeout=20)
    assert (process.returncode, said) == (126, f"{tmp_path / 'gone'}: No such file or directory\n")
    (tmp_path / "odd").write_text("#!/nosuch\n")
    (tmp_path / "odd").chmod(0o755)
    with started(tmp_path, "./odd") as process:
        _, said = process.communicate("\n", timeout=20)
    assert (process.returncode, said) == (126, "./odd: No such file or directory\n")
