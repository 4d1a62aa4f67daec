"""Messages for the journal, read as the journal reads them."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stillup.host import journal
from stillup.wire.log_lines import LogLine

NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True)


def read(packet: bytes) -> dict[str, str]:
    """JOURNAL_NATIVE_PROTOCOL, as systemd.io has it."""
    fields = {}
    while packet:
        line, _, rest = packet.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size + 1 :]
        fields[name.decode()] = value.decode(errors="replace")
        packet = rest
    return fields


@given(fields=st.dictionaries(NAMES, st.text(max_size=200)))
def test_every_field_arrives(fields: dict[str, str]) -> None:
    """Whatever its text is, newlines too; what is no UTF-8 is shown by its escape."""
    assert read(journal.encode(fields)) == {
        name: text.encode(errors="backslashreplace").decode() for name, text in fields.items()
    }


@given(fields=st.dictionaries(st.text(max_size=70) | NAMES, st.text(max_size=20)))
@example({"A\nSYSLOG_IDENTIFIER": "sshd", "_UID": "0", "1": "", "a": "", "": "", "X" * 65: "", "MESSAGE": "hello"})
def test_a_name_that_the_journal_has_not_is_left_out(fields: dict[str, str]) -> None:
    """So no name begins another field, or another entry (systemd.journal-fields(7): 64 of A-Z, 0-9 and _)."""
    named = {name for name in fields if re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name, re.ASCII)}
    assert read(journal.encode(fields)).keys() == named


def test_a_line_of_a_worker() -> None:
    """Which worker it is of is not for the line to say, nor is any field of the journal's own."""
    line = LogLine("no", "ERROR", "uvicorn.access", {"worker": "9.9", "status": 200})
    assert journal.fields(line, "1.2", 77) == {
        "MESSAGE": "1.2 no",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "stillup",
        "SYSLOG_PID": "77",
        "LOGGER": "uvicorn.access",
        "STILLUP_WORKER": "1.2",
        "STILLUP_STATUS": "200",
        "STILLUP_GENERATION": "1",
    }


def test_what_is_too_long_is_cut() -> None:
    """A datagram has its limit."""
    assert len(read(journal.encode({"MESSAGE": "x" * 100_000}))["MESSAGE"]) == journal.LONGEST


def test_where_stderr_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the journal when the variable names the very file that stderr is; it may have been redirected since."""
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    assert journal.is_stderr()
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
    assert not journal.is_stderr()
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not journal.is_stderr()


def test_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that listens is connected to; where there is none, nothing is left open."""
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "socket"))
    assert journal.connect() is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "socket"))
        sock = journal.connect()
        assert sock is not None
        with sock:
            os.write(sock.fileno(), journal.encode({"MESSAGE": "hello"}))
        assert read(listening.recv(4096)) == {"MESSAGE": "hello"}
