"""Programs of another user: what they have, and what acts before they have it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillup.errors import UsageError
from stillup.host.accounts import Account
from stillup.host.dropped_rights import try_out
from stillup.host.processes import HANDLED
from tests.host.example_children import child, ended, read_all

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
ROOT = Path(__file__).parents[2]
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

INSIDE = """
import os, subprocess, sys
from stillup.host.accounts import Account
from stillup.host.process_start import spawn
before = open("/proc/thread-self/status").read()
child = spawn(sys.argv[1:], {"PATH": os.defpath}, 1, 2, account=Account(12345, 12346))
os.waitpid(child.pid, 0)
def rights(text):
    return [line for line in text.splitlines() if line.startswith(("Cap", "NoNew", "Uid", "Gid", "Groups"))]
assert rights(open("/proc/thread-self/status").read()) == rights(before), "ours are what they were"
"""
"""Starts a program as somebody else, with what this one was started with."""


def inside(*argv: str, before: tuple[str, ...] = (), **options: object) -> str:
    """What a program writes that is started in ``INSIDE``; ``before``: the words before that one's command."""
    words = [*before, sys.executable, "-c", INSIDE, *argv]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False, **options)  # type: ignore[call-overload]
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout)


def status_of(text: str) -> dict[str, list[str]]:
    return {name: value.split() for name, _, value in (line.partition(":") for line in text.splitlines())}


@NEEDS_ROOT
@pytest.mark.parametrize("groups", [(), (12347, 12348)])
def test_whose_it_is(groups: tuple[int, ...]) -> None:
    """It is that user's in all its ids and in those groups alone, as initgroups(3) has them; it leads a session."""
    argv = ("/bin/cat", "/proc/self/status", "/proc/self/stat")
    with child(*argv, account=Account(12345, 12346, groups)) as (process, out, _):
        text = read_all(out)
    seen = status_of(text)
    assert (seen["Uid"], seen["Gid"]) == (["12345"] * 4, ["12346"] * 4)
    assert seen["Groups"] == [str(gid) for gid in (12346, *groups)]
    assert text.splitlines()[-1].split()[4:6] == [str(process.pid)] * 2, "of its group and its session (proc(5))"
    assert int(seen["SigBlk"][0], 16) == sum(1 << (number - 1) for number in HANDLED)


@NEEDS_ROOT
@pytest.mark.parametrize(
    "before",
    [(), ("setpriv", "--inh-caps=+dac_read_search,+chown", "--ambient-caps=+dac_read_search")],
    ids=["as we are", "with capabilities to inherit"],
)
def test_it_has_no_capability(before: tuple[str, ...]) -> None:
    """None of the five sets has any, whatever we were started with, and nothing that it executes brings one back."""
    seen = status_of(inside("cat", "/proc/self/status", before=before))
    assert {int(seen[name][0], 16) for name in SETS} == {0}
    assert seen["NoNewPrivs"] == ["1"]


@NEEDS_ROOT
def test_without_the_right_to_drop_rights() -> None:
    """In a container without CAP_SETPCAP it can have what is left of the bounding set by no program."""
    seen = status_of(inside("cat", "/proc/self/status", before=("setpriv", "--bounding-set=-setpcap")))
    assert {int(seen[name][0], 16) for name in SETS if name != "CapBnd"} == {0}
    assert seen["NoNewPrivs"] == ["1"]


@NEEDS_ROOT
def test_its_descriptors() -> None:
    """They are the three standard ones, though we have inheritable ones."""
    with Path("/dev/zero").open("rb") as zero:
        seen = inside("sh", "-c", "ls /proc/$$/fd; true", pass_fds=[zero.fileno()])
    assert seen.split() == ["0", "1", "2"]


@NEEDS_ROOT
def test_its_working_directory(tmp_path: Path) -> None:
    """It is no place of ours, where what that user may read could be by a relative name alone."""
    closed, below = tmp_path / "closed", tmp_path / "closed" / "project"
    below.mkdir(parents=True)
    (below / "file").write_text("anybody's, behind a directory that is not")
    closed.chmod(0o700)
    below.chmod(0o755)
    here = Path.cwd()
    os.chdir(below)
    try:
        with child("/bin/sh", "-c", "pwd; cat file", account=Account(12345, 12346)) as (_, out, _):
            said = read_all(out)
    finally:
        os.chdir(here)
    assert said.startswith("/\n")
    assert "anybody's" not in said


KEYRING = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
join, add = {"x86_64": (250, 248), "aarch64": (219, 217)}[os.uname().machine]
if libc.syscall(join, 1, None) < 0 or libc.syscall(add, b"user", b"of-root", b"secret", 6, -3) < 0:
    sys.exit(3)
os.execvp(sys.argv[1], sys.argv[1:])
"""


@NEEDS_ROOT
def test_its_core_dumps() -> None:
    """It may write as much as we may, and is dumpable, as any program is (PR_SET_DUMPABLE in prctl(2))."""
    script = "import ctypes, resource; print(ctypes.CDLL(None).prctl(3), *resource.getrlimit(resource.RLIMIT_CORE))"
    python = ("/usr/bin/python3", "-c", script)
    if not os.access("/usr/bin/python3", os.X_OK):
        pytest.skip("there is no python3 that others may execute")
    assert inside(*python, before=("prlimit", "--core=4096:8192")) == "1 4096 8192\n"


@NEEDS_ROOT
def test_its_session_keyring() -> None:
    """It is a new one: whoever has ours sees, and can read, what is in it (session-keyring(7))."""
    joined = (sys.executable, "-c", KEYRING)
    drop = ("setpriv", "--reuid=12345", "--regid=12346", "--clear-groups")
    control = subprocess.run([*joined, *drop, "cat", "/proc/keys"], capture_output=True, text=True, check=False)
    if control.returncode == 3:
        pytest.skip("there are no keyrings here")
    assert "of-root" in control.stdout
    keys = inside("cat", "/proc/keys", before=joined)
    assert "of-root" not in keys
    assert "_ses" in keys


NAMES = st.sampled_from(["LD_LIBRARY_PATH", "LD_PRELOAD", "GLIBC_TUNABLES", "GCONV_PATH", "PYTHONHOME", "IFS", "ENV"])
TEXT = st.binary(max_size=40).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
OTHER_NAMES = st.binary(max_size=40).map(lambda data: os.fsdecode(re.sub(rb"[\0=]", b"", data) or b"_"))


@NEEDS_ROOT
@settings(deadline=None)
@given(st.dictionaries(NAMES | OTHER_NAMES, TEXT, max_size=8))
def test_any_environment(environment: dict[str, str]) -> None:
    """It has the environment that it was given, to the byte, and no other."""
    argv = ("/bin/cat", "/proc/self/environ")
    with (
        child(*argv, environment=environment, account=Account(12345, 12346)) as (_, out, _),
        open(out, "rb", closefd=False) as file,
    ):
        seen = os.fsdecode(file.read())
    assert seen == "".join(f"{name}={value}\0" for name, value in environment.items())


@NEEDS_ROOT
@pytest.mark.parametrize("environment", [{"A=B": ""}, {"A": "\0"}, {"\0": "A"}, {"": "\0"}])
def test_no_environment(environment: dict[str, str]) -> None:
    """What no process could have is refused before anything is started."""
    with (
        pytest.raises(ValueError, match=r"illegal environment variable|embedded null"),
        child("/bin/true", environment=environment, account=Account(12345, 12346)),
    ):
        pass


@NEEDS_ROOT
def test_what_acts_before_main_acts_as_that_user(tmp_path: Path) -> None:
    """The loader writes, on behalf of the environment, as the user that the program is of."""
    tmp_path.chmod(0o777)
    environment = {"LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": str(tmp_path / "loader")}
    for path in tmp_path.parents:
        if path.stat().st_uid == 0 and not path.stat().st_mode & 1:
            path.chmod(path.stat().st_mode | 0o111)
    with child("/bin/true", environment=environment, account=Account(12345, 12346)) as (process, _, _):
        assert ended(process) == "exited 0"
    (written,) = tmp_path.iterdir()
    assert (written.stat().st_uid, written.stat().st_gid) == (12345, 12346)


@NEEDS_ROOT
def test_a_user_that_means_nothing_here() -> None:
    """Where we are root of a namespace alone the start is refused in one line that says as whom."""
    code = "from stillup.host.accounts import Account; from stillup.host.dropped_rights import try_out\n"
    code += "try_out(Account(12345, 12346, (7, 8)))"
    argv = ["unshare", "--user", "--map-root-user", sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if "unshare failed" in done.stderr:
        pytest.skip("there are no user namespaces here")
    says = "UsageError: --worker-user: no process can be started as uid 12345, gid 12346 and groups 7,8: "
    assert says in done.stderr.splitlines()[-1]


@NEEDS_ROOT
def test_it_is_tried_out() -> None:
    """Where it can be done nothing is said, and nothing is left."""
    try_out(Account(12345, 12346))
    assert os.waitpid(-1, os.WNOHANG) == (0, 0), "of our children none has ended"


def test_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody but root can have processes of another user."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="needs root"):
        try_out(Account(12345, 12346))
