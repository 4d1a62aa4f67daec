"""The app under load, of which the worker in slot 1 means ill: what it does is told by HOSTILE, a word a generation.

It begins with the generation HOSTILE_FIRST. From then on that worker serves nobody: before it accepts, its copies of
the listeners and of the queue's reading end are put out of the way. So whatever a client notices is the fault of how
the others were protected.
"""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.app import app

__all__ = ["MODES", "SILENT", "app"]

SILENT = "silent"
BEGINS = 1.0
"""Seconds from the import until it begins: by then it serves."""
KEPT = 256
_LISTENERS: list[socket.socket] = []
_ENDS: list[socket.socket] = []
"""Copies of the adoption queue's ends."""
_PIPES: list[int] = []
"""A copy of the pipe that a worker writes to until it is ready."""


def _sockets() -> list[socket.socket]:
    """Copies of all that this process has."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                found.append(socket.socket(fileno=os.dup(int(name))))
    return found


def _channel() -> socket.socket | None:
    """A copy of the channel to the supervisor, if there is one now."""
    for sock in _sockets():
        with contextlib.suppress(OSError):
            if sock.type == socket.SOCK_SEQPACKET and sock.getpeername() == os.environ["STILLUP_HANDOFF"]:
                return sock
        sock.close()
    return None


def _serve_nobody() -> None:
    """Put what connections come from out of the way, where its numbers stay what they are to whoever has them."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            sock = socket.socket(fileno=os.dup(fd))
        except OSError:
            continue
        with contextlib.suppress(OSError):
            if sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                with socket.create_server(("127.0.0.1", 0)) as other:
                    other.setblocking(False)
                    os.dup2(other.fileno(), fd, inheritable=False)
                _LISTENERS.append(sock)
            elif sock.type == socket.SOCK_SEQPACKET and not sock.getpeername() and not sock.getsockname():
                one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
                os.dup2(one.fileno(), fd, inheritable=False)
                _ENDS.extend((sock, one, two))


def _say_for_ever(words: Callable[[], bytes], fds: int = 0) -> None:
    """Send messages on the channel, on each that there is, as fast as that takes them."""
    while True:
        channel = _channel()
        if channel is None:
            time.sleep(0.01)
            continue
        with channel, contextlib.suppress(OSError):
            channel.setblocking(False)
            while True:
                try:
                    if fds:
                        socket.send_fds(channel, [words()], [0] * fds)
                    else:
                        channel.send(words())
                except BlockingIOError:
                    continue


def _burn() -> None:
    """Burn a processor and say nothing."""
    while True:
        pass


def _flood() -> None:
    """Report, and report again."""
    word = json.dumps({"type": "Report", "figures": {"classes": {"idle": 1}, "requests": 7}}).encode()
    _say_for_ever(lambda: word)


def _lies() -> None:
    """Report what cannot be."""

    def word() -> bytes:
        number: Any = random.choice([-1, 2**53, 2**64, 10**30])
        crossed = {"given": number, "adopted": number, "lost": number, "closed": number, "longest": 1e308}
        classes = {"idle": number, "x" * random.randrange(1000): number, "\x1b[2J": 1}
        figures = {"classes": classes, "requests": number, "oldest": {"stream": -1e308}, "crossed": crossed}
        return json.dumps({"type": "Report", "figures": figures}).encode()

    while True:
        channel = _channel()
        if channel is not None:
            with channel, contextlib.suppress(OSError):
                channel.send(word())
        time.sleep(0.1)


def _large() -> None:
    """Send the largest messages that there may be, and larger ones."""
    words = [
        json.dumps({"type": "BootFailed", "stage": "x", "message": "y" * size}).encode() for size in (120_000, 160_000)
    ]
    _say_for_ever(lambda: random.choice(words))


def _descriptors() -> None:
    """Send descriptors beside everything."""
    _say_for_ever(lambda: b'{"type":"Serving"}', fds=64)


def _garbage() -> None:
    """Send what is no message."""
    _say_for_ever(lambda: random.randbytes(random.randrange(300)))


def _handoff() -> None:
    """Connect, and connect again, and say nothing: by another process, since a worker itself has few places.

    It burns the processor that the silent one does.
    """
    code = (
        "import os, socket\n"
        "kept = []\n"
        "while True:\n"
        "    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)\n"
        "    try:\n"
        "        sock.connect(os.environ['STILLUP_HANDOFF'])\n"
        "    except OSError:\n"
        "        continue\n"
        "    kept.append(sock)\n"
        f"    if len(kept) > {KEPT}: kept.pop(0).close()\n"
    )
    subprocess.Popen([sys.executable, "-c", code]).wait()


def _memory() -> None:
    """Fill the memory in which it counts, with numbers and beyond its end."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("/memfd:stillup"):
                fd = os.dup(int(name))
                break
    else:
        return
    while True:
        with contextlib.suppress(OSError):
            os.posix_fallocate(fd, 0, 1 << 30)
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
        os.pwrite(fd, random.randbytes(4096), 0)


def _output() -> None:
    """Write to the pipe of its boot as much as just does not fill it, and ends of lines, and nothing worth a line."""
    words = [b" " * 65535, b"\n" * 65535, b"x\n" * 50]
    while True:
        for word in words:
            os.write(_PIPES[0], word)


def _queue() -> None:
    """Put into the adoption queue what nobody can use, beside what is no connection."""
    while True:
        one, two = socket.socketpair()
        with one, two:
            info = {"listener": "x" * random.choice([3, 2000, 100_000]), "given": -1e308, "idle_since": 1e308}
            good = json.dumps({"version": 1, "connections": [info, {**info, "read": "eA=="}]}).encode()
            for end in _ENDS:
                with contextlib.suppress(OSError):
                    end.setblocking(False)
                    socket.send_fds(end, [random.choice([good, random.randbytes(100)])], [one.fileno()] * 2)
        time.sleep(0.001)


def _stop() -> None:
    """Stand still."""
    os.kill(os.getpid(), 19)


def _exit() -> None:
    """Leave a child behind, and end."""
    subprocess.Popen(["sleep", "600"])
    os._exit(1)


MODES: dict[str, Callable[[], None]] = {
    SILENT: _burn,
    "flood": _flood,
    "lies": _lies,
    "large": _large,
    "descriptors": _descriptors,
    "garbage": _garbage,
    "handoff": _handoff,
    "memory": _memory,
    "output": _output,
    "queue": _queue,
    "stop": _stop,
    "exit": _exit,
}


def _begin() -> None:
    words = os.environ["HOSTILE"].split(",")
    turn = int(os.environ["STILLUP_GENERATION"]) - int(os.environ.get("HOSTILE_FIRST", "1"))
    if turn < 0:
        return
    _PIPES.append(os.dup(1))
    _serve_nobody()
    timer = threading.Timer(BEGINS, MODES[words[turn % len(words)]])
    timer.daemon = True
    timer.start()


if os.environ.get("STILLUP_WORKER") == "1":
    _begin()
