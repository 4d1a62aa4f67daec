"""The supervisor's own log: what workers and callers chose in it is shown, in each of its forms."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest

from stillup.daemon.state.console import Console
from stillup.host import descriptors

ATTACK = "\x1b]52;c;aGk=\x07\x9b31m\x7f\u202e\u2066"
PROGRAM = """
import logging, sys
from stillup.daemon.state.console import Console, set_up_logging
console = Console()
set_up_logging(console, logging.INFO, sys.argv[1])
attack = sys.argv[2]
try:
    raise ValueError(attack)
except ValueError:
    logging.getLogger("stillup.example").exception("a worker says %s", attack)
console.close()
"""


@pytest.mark.parametrize("form", ["auto", "text", "json"])
def test_no_control_is_logged(form: str) -> None:
    """Not of a message and not of a traceback; as JSON it is still what was said."""
    words = [sys.executable, "-c", PROGRAM, form, ATTACK]
    written = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stderr
    lines = written.split("\n")
    assert [char for line in lines for char in line if not char.isprintable()] == []
    assert "52;c" in lines[0]
    if form == "json":
        assert json.loads(lines[0])["message"].startswith(f"a worker says {ATTACK}")


def test_a_machine_that_stands_still_loses_no_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as our wait for it stands still, so does the thread that writes: a pause takes a part of that time."""
    goes_on = threading.Event()
    join = threading.Thread.join

    def stand_still_first(thread: threading.Thread, seconds: float | None = None) -> None:
        """The whole time is over at once, and nothing was done in it; from then on all goes on."""
        monkeypatch.setattr(threading.Thread, "join", join)
        goes_on.set()

    written: list[bytes] = []

    def write_all(_: int, data: bytes) -> None:
        assert goes_on.wait(20)
        written.append(data)

    monkeypatch.setattr(descriptors, "write_all", write_all)
    monkeypatch.setattr(threading.Thread, "join", stand_still_first)
    console = Console()
    console.write(2, b"the last line")
    console.close(30)
    assert written == [b"the last line"]


def test_no_message_begins_a_line_of_ours() -> None:
    """A name that a worker gave, or a field that it made up, may have a line's end in it."""
    words = [
        sys.executable,
        "-c",
        PROGRAM,
        "text",
        "no field 'a\n20:41:00 INFO    -     gen 9 serves\u2028gen 10 serves'",
    ]
    first, second, third, *_ = subprocess.run(
        words, capture_output=True, encoding="utf-8", check=True, timeout=30
    ).stderr.split("\n")
    assert first.endswith("a worker says no field 'a")
    assert second == "  | 20:41:00 INFO    -     gen 9 serves"
    assert third == "  | gen 10 serves'"
