"""What workers can do with the terminal, or the file, that the supervisor writes to."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.system.access.open_interpreter import for_anybody
from tests.system.access.people import needs_root
from tests.system.harness import APP, Service

WORKER = 20_022

APP_WITH_OUTPUT = """
import json, os, sys
def tries(function, *args):
    try:
        result = function(*args)
    except OSError as error:
        return error.strerror
    return result.decode() if isinstance(result, bytes) else "done"
def found():
    print("written to stdout")
    print("written to stderr", file=sys.stderr)
    return json.dumps({
        "flags": [open(f"/proc/self/fdinfo/{fd}").read().split()[3] for fd in (0, 1, 2)],
        "reads": tries(os.read, 1, 100),
        "reopens": [tries(os.open, f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK) for fd in (1, 2)],
        "stdin": os.readlink("/proc/self/fd/0"),
        "session": os.getsid(0) == os.getpgid(0) == os.getpid(),
        "controls": tries(os.open, "/dev/tty", os.O_RDWR),
    }).encode()
""" + APP.replace("    body =", '    body = found() if scope["path"] == "/found" else')

ON_ITS_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Executes a program with its stdin as its controlling terminal."""


def test_a_terminal(tmp_path: Path) -> None:
    """Workers write to the supervisor's terminal, and can neither read from it nor take it."""
    _on_a_terminal(Service(tmp_path, "main:app"), ())


@needs_root
def test_a_terminal_of_roots(folder: Path) -> None:
    """Workers of another user can't open it anew to read from it, either."""
    service = Service(folder, "main:app", "--worker-user", str(WORKER), "--worker-group", str(WORKER))
    _on_a_terminal(service, tuple(for_anybody(folder)))


def _on_a_terminal(service: Service, words: tuple[str, ...]) -> None:
    master, slave = os.openpty()
    service.write(APP_WITH_OUTPUT)
    service.argv = [*words, sys.executable, "-c", ON_ITS_TERMINAL, *service.argv]
    service.popen = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
    with service:
        os.write(master, b"typed by the operator\n")
        found = json.loads(service.get("/found"))
        said = b""
        while not (b"written to stdout" in said and b"written to stderr" in said):
            said += os.read(master, 65536)
        os.set_blocking(master, False)
    os.close(slave)
    os.close(master)
    assert [int(flags, 8) & os.O_ACCMODE for flags in found["flags"]] == [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY]
    assert found["reads"] == "Bad file descriptor"
    assert found["stdin"] == "/dev/null"
    assert found["session"]
    assert found["controls"] == "No such device or address"
    if words or (os.geteuid() == 0 and "--worker-user" in service.argv):
        assert found["reopens"] == ["Permission denied"] * 2


def test_a_file(tmp_path: Path) -> None:
    """A file that the supervisor could also read is only written to by workers, at its end; nothing is overwritten."""
    service = Service(tmp_path, "main:app")
    service.write(APP_WITH_OUTPUT)
    log = tmp_path / "output"
    log.write_text("before\n")
    with log.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        service.popen = {"stdout": file, "stderr": file}
        with service:
            found = json.loads(service.get("/found"))
            service.client.reload(wait="drained")
            json.loads(service.get("/found"))
    assert [int(flags, 8) & os.O_ACCMODE for flags in found["flags"]] == [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY]
    text = log.read_text()
    assert text.startswith("before\n")
    assert text.count("written to stdout\n") == text.count("written to stderr\n") == 2
    assert text.count(" listens on ") == 1
    assert "gen 2" in text
