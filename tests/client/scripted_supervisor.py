"""A supervisor of a test's own: it hears one request and says what it was told to, whatever that is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from stillup.wire.runtime_paths import CONTROL

DEADLINE = 20.0


@dataclass
class Supervisor:
    """What was asked, as it came."""

    asked: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    """Set by the test: until then the connection stays open."""


@contextmanager
def supervisor(
    directory: Path, *answers: bytes, hold: bool = False, last: Callable[[], None] | None = None
) -> Iterator[Supervisor]:
    """Answer one connection each with these bytes.

    ``hold``: do not hang up before the test is over; ``last``: do this before the last of them ends.
    """
    heard = Supervisor()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / CONTROL))
    listener.listen()
    listener.settimeout(DEADLINE)

    def speak() -> None:
        for number, answer in enumerate(answers, 1):
            try:
                connection, _ = listener.accept()
            except OSError:  # the test is over, and has failed
                return
            with connection, suppress(BrokenPipeError):
                connection.settimeout(DEADLINE)
                heard.asked.append(connection.recv(65536).decode())
                connection.sendall(answer)
                if last is not None and number == len(answers):
                    last()
                if hold:
                    heard.done.wait(DEADLINE)

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        yield heard
    finally:
        heard.done.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE)
        listener.close()
    assert not thread.is_alive()


def answer(body: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """A whole answer."""
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunks(*parts: bytes, end: bool = True, cut: bytes = b"") -> bytes:
    """A stream: its parts, a beginning of the next, and its end."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return head + body + cut + (b"0\r\n\r\n" if end else b"")
