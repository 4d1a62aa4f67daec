"""What a descriptor is, in the words of ss(8) and lsof(8): ``tcp 127.0.0.1:8000 listening``, ``memfd:state``."""

from __future__ import annotations

import os
import socket
from typing import Final

from stillup.host.peer import pid_of

_KINDS: Final = {socket.SOCK_STREAM: "stream", socket.SOCK_DGRAM: "dgram", socket.SOCK_SEQPACKET: "seqpacket"}
_MEMFD: Final = "/memfd:"
_DELETED: Final = " (deleted)"


def describe(fd: int) -> str:
    """What ``fd`` means in this process, by the kernel's word; nothing about it changes, and no descriptor is needed.

    A file is named by its path (proc_pid_fd(5)), a socket by its kind and addresses.
    """
    return _describe(fd).encode(errors="backslashreplace").decode()  # a path may be of any bytes


def _describe(fd: int) -> str:
    try:
        name = os.readlink(f"/proc/self/fd/{fd}")
        if name.startswith("socket:"):
            return _socket(fd)
        if "[pidfd]" in name or name.startswith("pidfd:"):  # the second since Linux 6.9
            return f"pidfd {pid_of(fd)}"
    except OSError as error:
        return f"unknown ({os.strerror(error.errno or 0)})"
    if name.startswith(_MEMFD):
        return name.removeprefix("/").removesuffix(_DELETED)
    kind, _, rest = name.partition(":")
    if name.startswith("/"):
        return name
    return rest.strip("[]") if kind == "anon_inode" else kind


def _socket(fd: int) -> str:
    sock = socket.socket(fileno=fd)
    try:
        own, listens = sock.getsockname(), sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        words = [_family(sock), _address(sock.family, own)]
        if listens:
            words.append("listening")
        elif other := _peer(sock):
            words.append(f"-> {other}")
        return " ".join(word for word in words if word)
    finally:
        sock.detach()  # the descriptor is somebody else's


def _family(sock: socket.socket) -> str:
    kind = _KINDS.get(sock.type, f"type {int(sock.type)}")
    if sock.family == socket.AF_UNIX:
        return f"unix {kind}"
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return {"stream": "tcp", "dgram": "udp"}.get(kind, f"ip {kind}")
    return f"family {int(sock.family)} {kind}"


def _peer(sock: socket.socket) -> str:
    try:
        return _address(sock.family, sock.getpeername())
    except OSError:  # it is not connected (any more)
        return ""


def _address(family: int, where: object) -> str:
    match where:
        case bytes():  # an abstract name
            return "@" + where[1:].decode(errors="backslashreplace")
        case str():
            return where
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
        case _:
            return ""
