"""``stillup dial-stdio``: a supervisor's control socket by standard input and output, for a command on another host."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import threading
from typing import Final

import click

from stillup.client.command_base import addressed_here
from stillup.client.control_client import Client
from stillup.errors import UsageError

_PIECE: Final = 64 * 1024
"""Bytes that are passed on at a time."""


@click.command("dial-stdio")
@addressed_here
def dial_stdio(client: Client) -> None:
    """Pass what comes by standard input to the supervisor, and its answers to standard output.

    It is what --remote runs on the other host, by ssh. To the supervisor the caller is the user that runs this, with
    that user's role. A key that may do nothing else, in ~/.ssh/authorized_keys there:

    \b
      restrict,command="stillup dial-stdio --name shop" ssh-ed25519 AAAA... deploy

    Exit 3 when no supervisor answers, 4 when its socket is not open to this user.
    """  # noqa: D301 - to click it is the character
    _refuse_another(client)
    connection = client.connect()
    try:
        connection.sock.unlimited()
        threading.Thread(target=_pass_on, args=(connection.sock,), daemon=True).start()
        with contextlib.suppress(OSError):  # who listens to us has hung up, or the supervisor has
            while piece := connection.sock.recv(_PIECE):
                _write(piece)
    finally:
        connection.hang_up()


def _refuse_another(client: Client) -> None:
    """A key's own command is run whatever was asked for (sshd(8)), which may be about another service.

    Raises:
        UsageError: it is.
    """
    try:
        words = shlex.split(os.environ.get("SSH_ORIGINAL_COMMAND", ""))
    except ValueError as error:
        raise UsageError(f"the command that was asked for makes no sense: {error}") from error
    for word in words:
        option, _, value = word.partition("=")
        if option == "--name" and value != (name := client.status().name):
            raise UsageError(f"this key is for '{name}', and {word} is meant")
        if option == "--runtime-dir" and value != client.directory:
            raise UsageError(f"this key is for '{client.directory}', and {word} is meant")


def _pass_on(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := os.read(0, _PIECE):
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)


def _write(piece: bytes) -> None:
    while piece:
        piece = piece[os.write(1, piece) :]
