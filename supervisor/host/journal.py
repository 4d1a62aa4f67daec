"""The journal's own protocol: a datagram a message, fields apart (systemd.io, JOURNAL_NATIVE_PROTOCOL)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

SOCKET: Final = "/run/systemd/journal/socket"
LONGEST: Final = 48 * 1024
"""Bytes of a field's value; more than a datagram holds would have to go by a memfd."""


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


def encode(fields: Mapping[str, str]) -> bytes:
    """One message. A value with a newline in it is sent with its length (little-endian, 64 bits) before it."""
    lines = []
    for name, text in fields.items():
        value = text.encode(errors="backslashreplace")[:LONGEST]
        if b"\n" in value:
            lines.append(name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n")
        else:
            lines.append(name.encode() + b"=" + value + b"\n")
    return b"".join(lines)
