"""A worker's own log: what is printed and what is logged, before it is ready and from then on."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillup.core.worker_settings import WorkerSettings
from stillup.host import journal
from stillup.wire import log_lines
from stillup.wire.log_lines import LogLine
from stillup.worker import worker_log
from stillup.worker.worker_log import WorkerLog
from tests.host.test_journal import read


class Written(io.TextIOWrapper):
    """A worker's stdout and stderr in one."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding="utf-8", errors="backslashreplace")

    def lines(self) -> list[str]:
        self.flush()
        return self.bytes.getvalue().decode().split("\n")[:-1]

    def messages(self) -> list[str]:
        """Without time, level and worker."""
        return [line.partition(" 1.2   ")[2] for line in self.lines()]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    written = Written()
    for name in ("__stdout__", "__stderr__"):
        monkeypatch.setattr(sys, name, written)
    monkeypatch.setattr(logging, "lastResort", logging.lastResort)
    streams = sys.stdout, sys.stderr
    yield written
    sys.stdout, sys.stderr = streams


def make(form: str = log_lines.TEXT, *, capture: bool = True, color: bool = False) -> WorkerLog:
    log = WorkerLog(WorkerSettings(log_form=form, log_capture=capture), "1.2", color=color)
    if (config := log.make_config()) is not None:
        logging.config.dictConfig(config)
    return log


def test_what_is_printed(written: Written) -> None:
    """A line each, however it comes; the last of it, too; nothing of an empty one."""
    make().ready()
    print("one", 1, end="")
    print(" and two", "three\n", sep="\n")
    sys.stderr.writelines(["of ", "stderr\n"])
    print("\x1b[2J" + "x" * log_lines.LONGEST)
    print("the last", end="", flush=True)
    worker_log.finish()
    one, three, stderr, shown, rest, last = written.messages()
    assert (one, three, stderr, last) == ("one 1 and two", "three", "of stderr", "the last")
    assert shown.startswith(r"\x1b[2Jxxx")
    assert set(rest) == {"x"}
    assert not sys.stdout.isatty()
    assert sys.stdout.encoding == "utf-8"


def test_until_it_is_ready(written: Written) -> None:
    """It goes by the pipe: what is printed as it is, what is logged packed; from then on both have their form."""
    log = make()
    print("printed")
    logging.getLogger("uvicorn.error").info("logged")
    log.show_error(ValueError("lost"))
    log.ready()
    logging.getLogger("uvicorn.error").info("logged")
    printed, *packed, formed = written.lines()
    assert printed == "printed"
    lines = [log_lines.from_pipe(line) for line in packed]
    assert [(line.level, line.message) for line in lines if line] == [("INFO", "logged"), ("ERROR", "ValueError: lost")]
    assert formed.endswith(" INFO    1.2   logged")


@pytest.mark.parametrize("form", [log_lines.TEXT, log_lines.JSON])
@pytest.mark.parametrize("is_ready", [False, True])
def test_what_is_printed_forges_nothing(written: Written, form: str, *, is_ready: bool) -> None:
    """A packed line that is printed, as of a request's body, is output of the app's like any other."""
    log = make(form)
    if is_ready:
        log.ready()
    forged = log_lines.packed(LogLine("gen 9 serves", "CRITICAL", "stillup", {"at": "never", "worker": "-"}))
    print(f"ok\n{forged}", flush=True)
    ok, *lines = written.lines()
    line = lines[-1]
    if not is_ready:
        assert (ok, log_lines.from_pipe(line)) == ("ok", LogLine(forged.replace("\x1e", r"\x1e")))
    elif form == log_lines.JSON:
        said = json.loads(line)
        assert (said["level"], said["worker"], said["message"]) == ("info", "1.2", forged)
        assert "logger" not in said
    else:
        assert lines[0].endswith(" INFO    1.2   ")
        assert line.startswith('  | {"message"')


def test_an_app_that_formats_uvicorns_handlers(written: Written) -> None:
    """What it has given them stays; and what it logs without a handler has the log's form from WARNING on."""
    log = make()
    (handler,) = logging.getLogger("uvicorn").handlers
    handler.setFormatter(logging.Formatter("theirs: %(message)s"))
    log.ready()
    logging.getLogger("uvicorn.error").info("x")
    assert written.lines() == ["theirs: x"]
    assert logging.lastResort is not None
    logging.lastResort.handle(logging.LogRecord("app", logging.WARNING, "", 1, "careful", (), None))
    assert written.lines()[-1].endswith(" WARNING 1.2   careful")


def test_without_capture(written: Written) -> None:
    """Where a debugger has the terminal what is printed is as it is, and the log has its form from the beginning."""
    before = sys.stdout
    make(capture=False)
    logging.getLogger("uvicorn.error").info("logged")
    assert sys.stdout is before
    assert written.messages() == ["logged"]
    assert WorkerLog(WorkerSettings(), "1.2", color=False).make_config() is None, "an operator's own, or uvicorn's"


def test_json(written: Written) -> None:
    """Both are objects."""
    make(log_lines.JSON).ready()
    print("printed")
    logging.getLogger("uvicorn.error").error("logged")
    printed, logged = (json.loads(line) for line in written.lines())
    assert (printed["message"], printed["worker"], "logger" in printed) == ("printed", "1.2", False)
    assert (logged["message"], logged["level"]) == ("logged", "error")


def test_the_journal(written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are messages with fields of their own; when it has gone they are lines."""
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "socket"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(journal.SOCKET)
        make(log_lines.JOURNAL).ready()
        print("printed")
        logging.getLogger("uvicorn.error").warning("logged")
        printed, logged = read(listening.recv(4096)), read(listening.recv(4096))
    assert (printed["MESSAGE"], printed["STILLUP_WORKER"], printed["PRIORITY"]) == ("1.2 printed", "1.2", "6")
    assert (logged["MESSAGE"], logged["LOGGER"], logged["PRIORITY"]) == ("1.2 logged", "uvicorn.error", "4")
    assert written.lines() == []
    print("later")
    assert written.messages() == ["later"]
