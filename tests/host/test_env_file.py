"""Environment files, whatever they hold and whoever has put them there."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given, settings
from hypothesis import strategies as st

from stillup.errors import Refused
from stillup.host import env_file_access
from stillup.host.accounts import Account
from stillup.host.config_file import written_by
from stillup.host.env_file import MOST, MOST_STRING
from stillup.host.env_file_access import read
from tests.system.harness import FULL

pytestmark = pytest.mark.usefixtures("no_leak")
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
SOMEBODY = Account(12345, 12346)


@pytest.fixture
def folder() -> Iterator[Path]:
    """One to which everybody gets."""
    with tempfile.TemporaryDirectory(prefix="stillup-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture(params=[None, pytest.param(SOMEBODY, marks=NEEDS_ROOT)], ids=["ours", "another's"])
def account(request: pytest.FixtureRequest) -> Account | None:
    """For whom a file is read."""
    found: Account | None = request.param
    return found


def refusal(path: Path, account: Account | None) -> str:
    with pytest.raises(Refused) as caught:
        read(str(path), {}, account)
    assert caught.value.code == "release"
    assert str(path) in str(caught.value)
    return str(caught.value)


def _hand_over(folder: Path, account: Account | None) -> None:
    """What is in it is that user's to choose from here on."""
    if account is not None:
        os.chown(folder, account.uid, account.gid)


def test_variables(folder: Path, account: Account | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As dotenv has them; they may name variables that there are to be, and none of our own process."""
    monkeypatch.setenv("TESTED", "ours")
    path = folder / "env"
    path.write_bytes(b"A=1\nexport B='two words'\nNONE\n# C=3\nD=${A}${TESTED}${NOWHERE:-x}\nE=\xc3\xa4\n")
    expected = {"A": "1", "B": "two words", "D": "1theirsx", "E": "\u00e4"}
    assert read(str(path), {"TESTED": "theirs"}, account) == expected


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"A=\xff", "cannot be read: 'utf-8' codec"),
        (b"A" * (MOST + 1), "is larger than 1 MiB"),
        (b"A=" + b"x" * MOST_STRING, "more than a process may be started with"),
        (b"".join(b"A%d=%s\n" % (n, b"x" * 100_000) for n in range(10)) + b"B=${A1}${A2}", "more than a process"),
        (b"A=x\0y", "has a variable that no process can have: 'A'"),
        (b"'A=B'=1", "has a variable that no process can have: 'A=B'"),
    ],
)
def test_no_environment(folder: Path, account: Account | None, content: bytes, why: str) -> None:
    """What no process could be started with is refused, and the refusal says what it is."""
    _hand_over(folder, account)
    path = folder / "env"
    path.write_bytes(content)
    assert why in refusal(path, account)


def test_no_file(folder: Path, account: Account | None) -> None:
    """A name with something else behind it is refused, without waiting for anybody."""
    _hand_over(folder, account)
    path = folder / "env"
    assert "is not there" in refusal(path, account)
    assert "is not there" in refusal(path / "below", account)
    path.mkdir()
    assert "is no regular file" in refusal(path, account)
    os.mkfifo(folder / "fifo")
    assert "is no regular file" in refusal(folder / "fifo", account)
    (folder / "device").symlink_to("/dev/zero")
    assert "is no regular file" in refusal(folder / "device", account)
    (folder / "loop").symlink_to("loop")
    assert "cannot be read: Too many levels of symbolic links" in refusal(folder / "loop", account)
    (folder / "sparse").touch()
    os.truncate(folder / "sparse", 1 << 40)
    assert "is larger than 1 MiB" in refusal(folder / "sparse", account)


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="A=${}'\"\\\n:-#\0 ", max_size=200).map(str.encode))
def test_any_bytes(content: bytes) -> None:
    """Are variables with which a process can be started, or are refused."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            found = read(file.name, {}, None)
        except Refused:
            return
    pid = os.posix_spawn("/bin/true", ["true"], found)
    assert os.waitpid(pid, 0)[1] == 0


@NEEDS_ROOT
def test_a_file_that_is_ours_alone(folder: Path) -> None:
    """One that root alone may read is read for another user if nobody else has had a hand in what its name means."""
    ours = folder / "ours"
    ours.mkdir()
    (ours / "env").write_text("A=1")
    (ours / "env").chmod(0o600)
    (ours / "link").symlink_to("env")
    (folder / "up").symlink_to("ours/../ours")
    for path in (ours / "env", ours / "link", folder / "up" / "link", Path("/", *ours.parts[1:], "..", "ours", "env")):
        assert read(str(path), {}, SOMEBODY) == {"A": "1"}


OWNERS = st.sampled_from([0, 0, 0, SOMEBODY.uid])
LEVELS = st.tuples(OWNERS, st.sampled_from([0o755, 0o755, 0o711, 0o775, 0o777, 0o1777]), OWNERS, st.booleans())
"""Owner and mode of a directory, the owner of a link to it, and whether it is gone to by that link."""


@NEEDS_ROOT
@settings(deadline=None)
@given(st.lists(LEVELS, max_size=3), OWNERS, st.sampled_from([0o600, 0o644, 0o664, 0o646]), st.none() | OWNERS)
def test_any_way_to_a_file(
    levels: list[tuple[int, int, int, bool]], owner: int, mode: int, link_owner: int | None
) -> None:
    """It is opened as root only if that user can write to no level of the way to it, nor to itself."""
    with tempfile.TemporaryDirectory(prefix="stillup-") as name:
        at = given = Path(name)
        at.chmod(0o755)
        made = []
        for directory_owner, directory_mode, level_link_owner, by_link in levels:
            (at / "d").mkdir()
            (at / "l").symlink_to("d")
            os.lchown(at / "l", level_link_owner, 0)
            made.append((at / "d", directory_owner, directory_mode))
            at, given = at / "d", given / ("l" if by_link else "d")
        (at / "file").write_text("A=1")
        (at / "link").symlink_to("file")
        os.lchown(at / "link", link_owner or 0, 0)
        (at / "file").chmod(mode)
        os.chown(at / "file", owner, 0)
        for path, directory_owner, directory_mode in made:
            path.chmod(directory_mode)
            os.chown(path, directory_owner, 0)
        given /= "file" if link_owner is None else "link"
        fd = env_file_access._open_if_ours(str(given))
        if fd is not None:
            os.close(fd)
            assert not written_by(str(given), SOMEBODY)
        else:
            foreign = any((one[:2] != (0, 0o755) and one[:2] != (0, 0o711)) or one[2] for one in levels)
            assert foreign or owner or mode & 0o022 or link_owner


@NEEDS_ROOT
@pytest.mark.parametrize("theirs", ["directory", "link", "open directory", "level above", "linked level"])
def test_a_file_of_roots_behind_a_name_of_others(folder: Path, theirs: str) -> None:
    """One that root alone may read is not, if somebody else could have chosen it."""
    (folder / "ours").mkdir()
    secret = folder / "ours" / "env"
    secret.write_text("A=1")
    secret.chmod(0o600)
    place = folder / "theirs"
    place.mkdir()
    path = place / "env"
    match theirs:
        case "directory":
            path.symlink_to(secret)
            os.chown(place, SOMEBODY.uid, 0)
        case "open directory":
            path.symlink_to(secret)
            place.chmod(0o777)
        case "link":
            path.symlink_to(secret)
            os.lchown(path, SOMEBODY.uid, 0)
        case "level above":
            os.chown(place, SOMEBODY.uid, 0)
            (place / "below").mkdir()
            path = place / "below" / "env"
            path.symlink_to(secret)
        case _:
            os.chown(place, SOMEBODY.uid, 0)
            (place / "below").symlink_to(folder / "ours")
            path = place / "below" / "env"
    assert "cannot be read: Permission denied" in refusal(path, SOMEBODY)
    secret.chmod(0o644)
    assert read(str(path), {}, SOMEBODY) == {"A": "1"}, "what the user may read is read"


@NEEDS_ROOT
def test_a_file_that_others_may_write(folder: Path) -> None:
    """It is read as the user for whom it is, though nobody else could have put it there."""
    path = folder / "env"
    path.write_text("A=1")
    path.chmod(0o622)
    assert "cannot be read: Permission denied" in refusal(path, SOMEBODY)
    os.chown(path, SOMEBODY.uid, SOMEBODY.gid)
    assert read(str(path), {}, SOMEBODY) == {"A": "1"}


@NEEDS_ROOT
def test_the_name_means_something_else_each_time(folder: Path) -> None:
    """While somebody exchanges what is in a directory of theirs, root's secret is never what is read."""
    (folder / "secret").write_text("SECRET=1")
    (folder / "secret").chmod(0o600)
    theirs = folder / "theirs"
    theirs.mkdir()
    (theirs / "env").write_text("A=1")
    os.chown(theirs, SOMEBODY.uid, SOMEBODY.gid)
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            (theirs / "link").symlink_to(folder / "secret")
            os.rename(theirs / "link", theirs / "env")
            (theirs / "file").write_text("A=1")
            os.rename(theirs / "file", theirs / "env")
            os.unlink(theirs / "env")

    thread = threading.Thread(target=exchange)
    thread.start()
    seen: set[str] = set()
    try:
        for _ in range(20 if FULL else 10):
            try:
                seen.update(read(str(theirs / "env"), {}, SOMEBODY))
            except Refused:
                continue
    finally:
        stop.set()
        thread.join()
    assert seen <= {"A"}


def of_theirs(path: Path, text: str) -> None:
    path.write_text(text)
    os.chown(path, SOMEBODY.uid, SOMEBODY.gid)


@NEEDS_ROOT
def test_it_has_a_deadline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of somebody else's that takes too long is given up."""
    monkeypatch.setattr(env_file_access, "DEADLINE", 1.0)
    of_theirs(folder / "env", "A=" + "${" * 500_000)
    assert "is not read within 1 s" in refusal(folder / "env", SOMEBODY)


@NEEDS_ROOT
def test_it_has_a_limit_of_memory(folder: Path) -> None:
    """A file whose variables are each twice the one before is given up before it has all memory."""
    of_theirs(folder / "env", "A0=0123456789\n" + "".join(f"A{n + 1}=${{A{n}}}${{A{n}}}\n" for n in range(40)))
    assert "takes too much memory" in refusal(folder / "env", SOMEBODY)


@NEEDS_ROOT
def test_a_file_of_theirs(folder: Path) -> None:
    """It is read in their name, to the same effect."""
    of_theirs(folder / "env", "A=1\nB=${A}${TESTED}${HOME}\n" + "C=x\n" * 5_000)
    assert read(str(folder / "env"), {"TESTED": "theirs"}, SOMEBODY) == {"A": "1", "B": "1theirs", "C": "x"}


@given(st.text(alphabet="AB=${}'\"\\\n:-# ", max_size=200))
def test_as_dotenv_has_it(text: str) -> None:
    """What it says of a file that may be an environment, with the variables of its own process."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(text.encode())
        file.flush()
        try:
            found = read(file.name, os.environ, None)
        except Refused:
            return
        assert found == {name: value for name, value in dotenv_values(file.name).items() if value is not None}
