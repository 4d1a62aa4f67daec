"""Rotating a log by renaming it, with the real logrotate and without: what is written next is in the new file."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path

from tests.cases.test_reading_the_log import SAID, TALKS
from tests.docs.pages import ROOT, blocks
from tests.system.harness import Service, eventually, in_order, pids

FORM = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (TRACE|DEBUG|INFO|WARNING|ERROR|CRITICAL) +(-|\d+\.\d+) +\S.*"
)
"""Time, level, who speaks, message."""
SLOW = """
import asyncio, pathlib
async def wait(path):
    if path == "/slow":
        pathlib.Path("asked.new").write_text(str(os.getpid()))
        os.rename("asked.new", "asked")
        while not pathlib.Path("go").exists():
            await asyncio.sleep(0.02)
        os.write(1, b"written to stdout itself\\n")
        print("late")
""" + TALKS.replace("    talk()\n", '    talk()\n    await wait(scope["path"])\n')


def test_a_log_file(tmp_path: Path) -> None:
    """All of it is in the file, one form; renamed and reopened, it goes on in a new one, of every generation."""
    service = Service(tmp_path, "main:app", "--log-file", "app.log", "--drain-timeout", "20")
    service.tracebacks_expected = True
    service.write(SLOW)
    log, renamed = tmp_path / "app.log", tmp_path / "app.log.1"
    with service:
        slow = threading.Thread(target=service.get, args=("/slow",))
        slow.start()
        eventually((tmp_path / "asked").exists, "a request is under way")
        assert service.client.reload(wait="cut-over").outcome == "succeeded"
        log.rename(renamed)
        service.signal(signal.SIGUSR1)
        eventually(lambda: log.exists() and "app.log is reopened" in log.read_text(), "it is reopened")
        eventually(lambda: all(writes_to(pid, log) for pid in pids(service).values()), "the workers have heard of it")
        eventually(lambda: writes_to(int((tmp_path / "asked").read_text()), log), "the one that drains, too")
        before = renamed.read_text()
        (tmp_path / "go").touch()
        slow.join()
        service.get("/second")
        assert service.client.reload(wait="drained").state == "done"
        eventually(lambda: "gen 2 has left" in log.read_text(), "it is logged, by a thread")
        service.get("/third")
        eventually(lambda: "/third" in log.read_text(), "it is logged")
        if shutil.which("logrotate"):
            rotate(service, log, tmp_path / "app.log.2")
    new = log.read_text() if not (tmp_path / "app.log.2").exists() else (tmp_path / "app.log.2").read_text()
    assert renamed.read_text() == before, "nobody writes into the renamed one"
    in_order(before, *map(re.escape, SAID[:-1]))
    in_order(
        new, " 1.1   late", ' 1.1   .*"GET /slow', ' 2.1   .*"GET /second', " - +gen 2 has left", ' 3.1   .*"GET /third'
    )
    assert "\nwritten to stdout itself\n" in new
    for line in before.splitlines():
        assert FORM.fullmatch(line) or line.startswith("  | "), line
    assert service.log() == "", "nothing is said on stderr"


def writes_to(pid: int, log: Path) -> bool:
    return {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (1, 2)} == {str(log)}


def rotate(service: Service, log: Path, last: Path) -> None:
    """Do what the page says, by logrotate(8) itself; the log so far is ``last`` then."""
    (recipe,) = (block.text for block in blocks(ROOT / "docs" / "deploy.md") if block.language == "logrotate")
    kill = re.compile(r"systemctl kill --kill-whom=main --signal=USR1 \S+")
    assert kill.search(recipe)
    recipe = kill.sub(f"kill -USR1 {service.process.pid}", recipe).replace("/var/log/shop/shop.log", str(log))
    recipe = recipe.replace("rotate 14", "rotate 14\n    start 2")
    file = log.parent / "logrotate.conf"
    file.write_text(recipe)
    file.chmod(0o600)
    state = log.parent / "logrotate.state"
    done = subprocess.run(
        ["logrotate", "--force", "--state", state, file], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert last.exists(), list(log.parent.iterdir())
    eventually(lambda: log.exists() and "is reopened" in log.read_text(), "the new one is written to")
    service.get("/fourth")
    eventually(lambda: "/fourth" in log.read_text(), "by workers, too")
