"""The journal's own protocol: a datagram a message, fields apart (systemd.io, JOURNAL_NATIVE_PROTOCOL)."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from typing import Final

from stillup.wire.log_lines import LogLine, speaker

SOCKET: Final = "/run/systemd/journal/socket"
_PRIORITIES: Final = {"TRACE": 7, "DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
"""Of syslog (syslog(3)): 2 critical, 3 error, 4 warning, 6 informational, 7 debug."""
LONGEST: Final = 48 * 1024
"""Bytes of a field's value; more than a datagram holds would have to go by a memfd."""
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
"""A field's name (systemd.journal-fields(7)); one that begins with a _ is the journal's own."""


def is_stderr() -> bool:
    """Whether stderr is connected to the journal (systemd.exec(5) on ``$JOURNAL_STREAM``: device and inode)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def connect() -> socket.socket | None:
    """A socket to the journal; None if it does not listen."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.connect(SOCKET)
    except OSError:
        sock.close()
        return None
    return sock


def fields(line: LogLine, worker: str, pid: int) -> dict[str, str]:
    """A line of the log as a message: a worker's begins with its name, and what it is about has fields of its own."""
    about = {**line.fields, **speaker(worker)}
    return {
        "MESSAGE": f"{worker} {line.message}" if worker else line.message,
        "PRIORITY": str(_PRIORITIES.get(line.level, 6)),
        "SYSLOG_IDENTIFIER": "stillup",
        "SYSLOG_PID": str(pid),
        **({"LOGGER": line.logger} if line.logger else {}),
        **{f"STILLUP_{name.upper()}": str(value) for name, value in about.items()},
    }


def encode(fields: Mapping[str, str]) -> bytes:
    """One message. A value with a newline in it is sent with its length (little-endian, 64 bits) before it.

    What has no name of the journal's is left out: a newline in a name would begin a field, or another message.
    """
    lines = []
    for name, text in fields.items():
        if _NAME.fullmatch(name) is None:
            continue
        value = text.encode(errors="backslashreplace")[:LONGEST]
        if b"\n" in value:
            lines.append(name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n")
        else:
            lines.append(name.encode() + b"=" + value + b"\n")
    return b"".join(lines)
