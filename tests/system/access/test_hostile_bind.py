"""A service of root's whose socket file is in the directory of another user, who does not want it to come to be."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillup.errors import Unavailable
from stillup.host.runtime_directory import claim
from tests.children import spawned
from tests.system.access.people import LOOK, needs_root
from tests.system.harness import DEADLINE, Service

pytestmark = needs_root

EVE = 20_050
STARTS = 4
ENOUGH = 30
PATIENCE = 10.0
"""Seconds; on a busy machine somebody else may come to little in them."""

EXCHANGES = r"""
import itertools, os, socket, stat, sys
path, victim = sys.argv[1:]
spare = path + ".spare"
def symlink(): os.symlink(victim, spare)
def dangling(): os.symlink(victim + ".none", spare)
def hard_link(): os.link(victim, spare)
def fifo(): os.mkfifo(spare)
def directory(): os.mkdir(spare)
def of_mine():
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(spare)
ways = itertools.cycle((symlink, dangling, hard_link, fifo, of_mine, directory))
def away(name):
    try:
        os.rmdir(name) if stat.S_ISDIR(os.lstat(name).st_mode) else os.unlink(name)
    except OSError:
        pass
print("here", flush=True)
while True:
    try:
        found = os.lstat(path)
        if found.st_uid == os.geteuid() or not stat.S_ISSOCK(found.st_mode):
            away(path)
            continue
        next(ways)()
        away(path)
        os.rename(spare, path)
    except OSError:
        if os.environ.get("FIRST") and not os.path.lexists(path):
            try:
                next(ways)()
                os.rename(spare, path)
            except OSError:
                pass
    away(spare)
"""
"""Puts one thing after the other in the place of every socket file that comes; with FIRST, also where nothing is."""


@contextlib.contextmanager
def eve(path: Path, victim: Path, **environment: str) -> Iterator[None]:
    drop = ["setpriv", f"--reuid={EVE}", f"--regid={EVE}", "--clear-groups", *LOOK]
    argv = [*drop, sys.executable, "-IS", "-c", EXCHANGES, str(path), str(victim)]
    with spawned(argv, cwd="/", stdout=subprocess.PIPE, env={**os.environ, **environment}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        yield
        process.kill()


@pytest.fixture
def victim(folder: Path) -> Iterator[Path]:
    """A file of root's, for nobody else; it stays as it was."""
    path = folder / "victim"
    path.write_text("precious")
    path.chmod(0o600)
    before = path.lstat()
    yield path
    after = path.lstat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert path.read_text() == "precious"
    assert not path.with_name("victim.none").exists()


def test_starts(folder: Path, victim: Path) -> None:
    """Each comes to its end soon: it serves, or says in one line what is wrong; and changes nothing else."""
    (folder / "eve").mkdir()
    os.chown(folder / "eve", EVE, EVE)
    bind = f"unix:{folder}/eve/web.sock,mode=0666,user=daemon,group=mail"
    service = Service(folder, "main:app", binds=(bind,), runtime=folder / "rt", wait=False)
    service.write()
    with eve(folder / "eve" / "web.sock", victim):
        for _ in range(STARTS):
            began = time.monotonic()
            service.start()
            with contextlib.suppress(AssertionError):
                service.until_serving()
                service.process.terminate()
            service.process.wait(DEADLINE)
            assert time.monotonic() - began < DEADLINE
    log = service.log()
    assert "Traceback" not in log
    refused = [line for line in log.splitlines() if line.startswith("stillup: ")]
    assert all(f"cannot bind unix:{folder}/eve/web.sock: " in line for line in refused), log
    assert len(refused) + log.count(" serves\n") >= STARTS, log
    assert not (folder / "rt").exists()


def test_a_runtime_directory_where_anybody_may_make_one(folder: Path, victim: Path) -> None:
    """What is had in a sticky directory is a directory of root's alone, whatever another has there at each moment."""
    folder.chmod(0o1777)
    path = folder / "rt"
    refused, until = 0, time.monotonic() + PATIENCE
    with eve(path, victim, FIRST="1"):
        while refused < ENOUGH and time.monotonic() < until:
            try:
                held = claim(str(path))
            except Unavailable:
                refused += 1
                continue
            status = os.lstat(path)
            assert (status.st_uid, status.st_mode) == (0, stat.S_IFDIR | 0o700)
            assert os.path.samestat(os.fstat(held.lock), os.lstat(path / "lock"))
            held.close()
    assert refused
